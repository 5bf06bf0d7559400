#include <algorithm>
#include <bit>

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::parallel {

namespace {

void add_into(const Tensor& x, const Tensor& y, Stream& stream) {
  visit_kernels<kernels::ElementwiseKernels>(
      x, [&]<Device D, class T>() { kernels::accumulate<D>(x.data<T>(), y.data<T>(), x.numel(), stream); });
}

}  // namespace

GradientReducer::GradientReducer(nn::ParamStore& store, const ProcessGroups& groups, int64_t lanes_per_rank)
    : store_(store), groups_(groups), lanes_per_rank_(lanes_per_rank) {
  check(std::has_single_bit(static_cast<uint64_t>(lanes_per_rank)), ErrorKind::internal,
        "[reducer] lanes per rank must be a power of two, got {}", lanes_per_rank);
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

void GradientReducer::begin_step() { store_.zero_gradients(); }

void GradientReducer::end_lane() {
  if (!trees_.empty()) store_.settle_gradients();
  for (size_t g = 0; g < trees_.size(); ++g) fold(store_.groups()[g], trees_[g]);
}

// Counting up in binary: a carry out of level l is the sum of two subtrees of 2^l lanes, the earlier one
// first.
void GradientReducer::fold(const nn::ParamGroup& group, LaneTree& tree) {
  Stream stream(store_.options().device);
  const Tensor& carry = group.gradient;
  for (size_t level = 0; level < tree.levels.size(); ++level) {
    if (!tree.occupied[level]) {
      copy(carry, tree.levels[level], stream);
      tree.occupied[level] = true;
      fill_zero(carry, stream);  // the slab of the next lane
      return;
    }
    add_into(tree.levels[level], carry, stream);
    tree.occupied[level] = false;
  }
  // A carry out of the last level: all lanes are in, and the slab holds their sum.
}

void GradientReducer::reduce(Stream& stream) {
  const Span span(stream.profile(), "reduce_gradients");
  store_.settle_gradients();
  const ReduceOrder order = stream.strict() ? ReduceOrder::fixed_tree : ReduceOrder::any;
  for (nn::ParamGroup& g : store_.groups()) {
    // Sources are consecutive ranks, i.e. the tree's next levels.
    for (int64_t stride = 1; stride < g.sources; stride *= 2) {
      for (int64_t s = 0; s + stride < g.sources; s += 2 * stride) {
        add_into(g.gradient.rows((s + stride) * g.numel, (s + stride + 1) * g.numel),
                 g.gradient.rows(s * g.numel, (s + 1) * g.numel), stream);
      }
    }
    Communicator& ranks = g.expert_parallel == 0 ? groups_.world() : groups_.expert_dp(g.expert_parallel);
    ranks.all_reduce(g.gradient.rows(0, g.numel), ReduceOp::sum, order, stream).wait();
  }
}

double GradientReducer::squared_norm(Stream& stream) {
  // One number per replicated parameter and per expert; each is contributed by exactly one rank, so the sum
  // over ranks is exact whatever its order.
  std::vector<double> parts;
  // Every rank holds a replicated parameter's gradient: the one with the least to do so far takes it.
  std::vector<int64_t> load(static_cast<size_t>(groups_.world().size()), 0);
  const auto next_rank = [&](const nn::ParamEntry& entry) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += entry.numel;
    return static_cast<int>(least - load.begin());
  };
  for (const nn::ParamEntry& entry : store_.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const bool replicated = spec.expert_parallel == 0;
    const bool mine = replicated ? next_rank(entry) == groups_.world().rank()
                                 : groups_.expert_dp(spec.expert_parallel).rank() == 0;
    const int64_t rows = replicated ? 1 : spec.global_shape[0];
    const int64_t first = replicated ? 0 : spec.row_begin,
                  held = replicated ? 1 : spec.row_end - spec.row_begin;
    const size_t base = parts.size();
    parts.resize(base + static_cast<size_t>(rows), 0.0);
    if (!mine || entry.numel == 0) continue;
    const Tensor grad = entry.param.grad.reshape({held, entry.numel / held});
    for (int64_t r = 0; r < held; ++r) {
      const Tensor row = grad.rows(r, r + 1);
      visit_kernels<kernels::SumOfSquaresKernels>(row, [&]<Device D, class T>() {
        parts[base + static_cast<size_t>(first + r)] =
            kernels::sum_of_squares<D>(row.data<T>(), row.numel(), stream);
      });
    }
  }
  const Tensor all(parts.data(), DType::f64, {static_cast<int64_t>(parts.size())});
  groups_.world().all_reduce(all, ReduceOp::sum, ReduceOrder::any, stream).wait();
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

}  // namespace ziggurat::parallel
