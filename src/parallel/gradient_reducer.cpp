#include <algorithm>
#include <bit>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::parallel {

GradientReducer::GradientReducer(nn::ParamStore& store, const ProcessGroups& groups, int64_t lanes_per_rank)
    : store_(store), groups_(groups), lanes_per_rank_(lanes_per_rank) {
  check(std::has_single_bit(static_cast<uint64_t>(lanes_per_rank)), ErrorKind::internal,
        "[reducer] lanes per rank must be a power of two, got {}", lanes_per_rank);
  plan_norms();
  if (lanes_per_rank_ == 1) return;  // the one lane is the gradient slab itself
  const int levels =
      std::bit_width(static_cast<uint64_t>(lanes_per_rank_)) - 1;  // the top sum stays in the slab
  int64_t bytes = 0;
  for (const nn::ParamGroup& g : store.groups()) bytes += levels * (g.gradient.bytes() + Arena::kAlignment);
  arena_ = std::make_unique<Arena>("gradient lanes", bytes, store.options().device);
  for (const nn::ParamGroup& g : store.groups()) {
    LaneTree& tree = trees_.emplace_back();
    for (int l = 0; l < levels; ++l)
      tree.levels.push_back(allocate(*arena_, g.gradient.dtype(), g.gradient.shape()));
    tree.occupied.assign(static_cast<size_t>(levels), false);
  }
}

bool GradientReducer::scatters(const nn::ParamGroup& group) const {
  return group.sharded() && store_.options().reproducible != Reproducible::strict;
}

// One number for each range, or each replicated parameter and each expert, told by exactly one rank, so that
// the sum over ranks is exact whatever its order.
void GradientReducer::plan_norms() {
  int64_t parts = 0;
  for (const nn::ParamGroup& g : store_.groups()) {
    if (!scatters(g)) continue;
    // What lies between parameters is zero.
    mine_.push_back({g.gradient.rows(g.owned.begin, g.owned.end), parts + groups_.world().rank()});
    parts += groups_.world().size();
  }
  // Every rank holds a replicated parameter's gradient: the one with the least to do so far takes it.
  std::vector<int64_t> load(static_cast<size_t>(groups_.dp().size()), 0);
  const auto next_rank = [&](const nn::ParamEntry& entry) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += entry.numel;
    return static_cast<int>(least - load.begin());
  };
  for (const nn::ParamEntry& entry : store_.entries()) {
    if (scatters(store_.group_of(entry))) continue;
    const nn::ParamSpec& spec = entry.spec;
    const bool replicated = spec.expert_parallel == 0;
    const bool mine = replicated ? next_rank(entry) == groups_.dp().rank()
                                 : groups_.expert_dp(spec.expert_parallel).rank() == 0;
    const int64_t first = parts + (replicated ? 0 : spec.row_begin),
                  held = replicated ? 1 : spec.row_end - spec.row_begin;
    parts += replicated ? 1 : spec.global_shape[0];
    if (!mine || entry.numel == 0) continue;
    const Tensor gradient = entry.param.grad.reshape({held, entry.numel / held});
    for (int64_t r = 0; r < held; ++r) mine_.push_back({gradient.rows(r, r + 1), first + r});
  }
  constexpr int64_t kWorkspace = int64_t{1} << 14;  // bytes; partial sums of one piece
  norm_arena_ =
      std::make_unique<Arena>("gradient norms", parts * size_of(DType::f64) + kWorkspace + Arena::kAlignment,
                              store_.options().device);
  squared_norms_ = allocate(*norm_arena_, DType::f64, {parts});
}

void GradientReducer::begin_step(Stream& stream) { store_.zero_gradients(stream); }

void GradientReducer::end_lane(Stream& stream) {
  if (!trees_.empty()) store_.settle_gradients(stream);
  for (size_t g = 0; g < trees_.size(); ++g) fold(store_.groups()[g], trees_[g], stream);
}

// Counting up in binary: a carry out of level l is the sum of two subtrees of 2^l lanes, the earlier one
// first.
void GradientReducer::fold(const nn::ParamGroup& group, LaneTree& tree, Stream& stream) {
  const Tensor& carry = group.gradient;
  for (size_t level = 0; level < tree.levels.size(); ++level) {
    if (!tree.occupied[level]) {
      copy(carry, tree.levels[level], stream);
      tree.occupied[level] = true;
      fill_zero(carry, stream);  // the slab of the next lane
      return;
    }
    accumulate(tree.levels[level], carry, stream);
    tree.occupied[level] = false;
  }
  // A carry out of the last level: all lanes are in, and the slab holds their sum.
}

void GradientReducer::reduce(Stream& stream) {
  const Span span(stream.profile(), "reduce_gradients");
  store_.settle_gradients(stream);
  const ReduceOrder order = stream.strict() ? ReduceOrder::fixed_tree : ReduceOrder::any;
  for (const nn::ParamGroup& g : store_.groups()) {
    // Sources are consecutive ranks, i.e. the tree's next levels.
    for (int64_t stride = 1; stride < g.sources; stride *= 2) {
      for (int64_t s = 0; s + stride < g.sources; s += 2 * stride) {
        accumulate(g.gradient.rows((s + stride) * g.numel, (s + stride + 1) * g.numel),
                   g.gradient.rows(s * g.numel, (s + 1) * g.numel), stream);
      }
    }
    Communicator& ranks = nn::replicas(g, groups_);
    const Tensor sum = g.gradient.rows(0, g.numel);
    if (scatters(g)) {
      ranks.reduce_scatter(sum, sum.rows(g.owned.begin, g.owned.end), order, stream).wait();
    } else {
      ranks.all_reduce(sum, ReduceOp::sum, order, stream).wait();
    }
  }
}

Tensor GradientReducer::squared_norms(Stream& stream) {
  fill_zero(squared_norms_, stream);
  for (const Part& part : mine_) {
    note_kernel("sum_of_squares", Pass::backward, part.gradient);
    visit_kernels<kernels::SumOfSquaresKernels>(part.gradient, [&]<Device D, class T>() {
      kernels::sum_of_squares<D>(part.gradient.data<T>(), part.gradient.numel(),
                                 squared_norms_.data<double>() + part.place, *norm_arena_, stream);
    });
  }
  groups_.world().all_reduce(squared_norms_, ReduceOp::sum, ReduceOrder::any, stream).wait();
  return squared_norms_;
}

}  // namespace ziggurat::parallel
