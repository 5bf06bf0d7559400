#include <algorithm>
#include <bit>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::parallel {

// Memory that scattered groups take in turn.
struct Loan {
  std::unique_ptr<Arena> arena;
  Tensor memory;
  bool out = false;
};

GradientReducer::GradientReducer(nn::ParamStore& store, const ProcessGroups& groups, int64_t lanes_per_rank,
                                 const std::vector<int>& norm_groups)
    : store_(store), groups_(groups), lanes_per_rank_(lanes_per_rank) {
  check(std::has_single_bit(static_cast<uint64_t>(lanes_per_rank)), ErrorKind::internal,
        "[reducer] lanes per rank must be a power of two, got {}", lanes_per_rank);
  plan_norms(norm_groups);
  progress_.resize(store.groups().size());
  for (const nn::ParamEntry& entry : store.entries()) {
    if (entry.numel > 0) progress_[static_cast<size_t>(entry.group)].entries.push_back(&entry);
  }
  for (const nn::ParamGroup& g : store.groups()) {
    Communicator* const ranks = &nn::replicas(g, groups);
    if (std::find(ranks_.begin(), ranks_.end(), ranks) == ranks_.end()) ranks_.push_back(ranks);
  }
  scattering_ = progress_.size();
  recorded_.resize(progress_.size());
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

GradientReducer::~GradientReducer() = default;

bool GradientReducer::scatters(const nn::ParamGroup& group) const {
  return group.sharded() && store_.options().reproducible != Reproducible::strict;
}

// Of a group of which each rank has its own range: entries of one norm group that follow each other are one
// part of every rank. What lies between entries is zero.
void GradientReducer::plan_norms_of_ranges(const std::vector<int>& norm_groups) {
  struct Run {
    int norm_group;
    int64_t begin, end;  // in the group's slabs
  };
  std::vector<std::vector<Run>> runs(store_.groups().size());
  for (size_t i = 0; i < store_.entries().size(); ++i) {
    const nn::ParamEntry& entry = store_.entries()[i];
    std::vector<Run>& of_group = runs[static_cast<size_t>(entry.group)];
    const int norm_group = norm_groups.empty() ? 0 : norm_groups[i];
    if (!of_group.empty() && of_group.back().norm_group == norm_group) continue;
    if (!of_group.empty()) of_group.back().end = entry.offset;
    of_group.push_back({norm_group, of_group.empty() ? 0 : entry.offset, store_.group_of(entry).numel});
  }
  for (size_t group = 0; group < runs.size(); ++group) {
    const nn::ParamGroup& g = store_.groups()[group];
    if (!scatters(g)) continue;
    const Tensor owned = g.scattered ? g.gradient : g.gradient.rows(g.owned.begin, g.owned.end);
    for (const Run& run : runs[group]) {
      const int64_t begin = std::clamp(run.begin, g.owned.begin, g.owned.end) - g.owned.begin,
                    end = std::clamp(run.end, g.owned.begin, g.owned.end) - g.owned.begin;
      if (begin < end)
        mine_.push_back({owned.rows(begin, end), run.norm_group, parts_ + groups_.world().rank()});
      parts_ += groups_.world().size();
    }
  }
}

// One number for each range, or each replicated parameter, part of a cut one and each expert, told by exactly
// one rank, so that the sum over ranks is exact whatever its order.
void GradientReducer::plan_norms(const std::vector<int>& norm_groups) {
  check(norm_groups.empty() || norm_groups.size() == store_.entries().size(), ErrorKind::internal,
        "[reducer] norm groups of {} of {} parameters", norm_groups.size(), store_.entries().size());
  plan_norms_of_ranges(norm_groups);
  // Every rank holds a replicated parameter's gradient: the one with the least to do so far takes it.
  std::vector<int64_t> load(static_cast<size_t>(groups_.dp().size()), 0);
  const auto next_rank = [&](const nn::ParamEntry& entry) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += entry.numel;
    return static_cast<int>(least - load.begin());
  };
  for (size_t i = 0; i < store_.entries().size(); ++i) {
    const nn::ParamEntry& entry = store_.entries()[i];
    if (scatters(store_.group_of(entry))) continue;
    const nn::ParamSpec& spec = entry.spec;
    const bool experts = spec.expert_parallel > 0, cut = !spec.cut.empty();
    const int tp = groups_.tp().rank();
    const bool mine = experts ? groups_.expert_dp(spec.expert_parallel).rank() == 0
                              : next_rank(entry) == groups_.dp().rank() && (cut || tp == 0);
    const Communicator& cut_over = experts ? groups_.expert_tp() : groups_.tp();
    const int64_t pieces = cut ? cut_over.size() : 1, of_piece = experts ? spec.global_shape[0] : 1;
    const int64_t first = parts_ + (cut ? cut_over.rank() * of_piece : 0) + spec.row_begin,
                  held = experts ? spec.row_end - spec.row_begin : 1;
    parts_ += pieces * of_piece;
    if (!mine || entry.numel == 0) continue;
    const Tensor gradient = entry.param.grad.reshape({held, entry.numel / held});
    const int norm_group = norm_groups.empty() ? 0 : norm_groups[i];
    for (int64_t r = 0; r < held; ++r) mine_.push_back({gradient.rows(r, r + 1), norm_group, first + r});
  }
  const int64_t rows =
      norm_groups.empty() ? 1 : 1 + *std::max_element(norm_groups.begin(), norm_groups.end());
  constexpr int64_t kWorkspace = int64_t{1} << 14;  // bytes; partial sums of one piece
  norm_arena_ = std::make_unique<Arena>("gradient norms",
                                        rows * parts_ * size_of(DType::f64) + kWorkspace + Arena::kAlignment,
                                        store_.options().device);
  squared_norms_ = allocate(*norm_arena_, DType::f64, {rows, parts_});
}

void GradientReducer::begin_step(Stream& stream) {
  for (Progress& progress : progress_) progress.reduced = false;
  store_.zero_gradients(stream);
}

void GradientReducer::begin_micro_batch(Stream& stream, bool behind) {
  stream_ = &stream, behind_ = behind;
  for (Progress& progress : progress_) progress.to_come = progress.entries.size();
  for (nn::ParamEntry& entry : store_.entries()) entry.use.to_come = 0;
}

void GradientReducer::before_write(const Param& param) {
  const auto group = static_cast<size_t>(entry_of(param).group);
  Progress& progress = progress_[group];
  if (stream_ == nullptr || !store_.groups()[group].scattered || progress.loan != nullptr) return;
  const int64_t elements = store_.groups()[group].numel;
  progress.loan = &lend(elements);
  store_.lend_gradients(group, progress.loan->memory.rows(0, elements), *stream_);
}

void GradientReducer::complete(const Param& param) {
  if (stream_ == nullptr) return;
  const auto group = static_cast<size_t>(entry_of(param).group);
  if (--progress_[group].to_come > 0) return;
  if (store_.groups()[group].scattered) {
    begin_scatter(group);
  } else if (behind_) {
    settle(group);
    if (!trees_.empty()) fold(store_.groups()[group], trees_[group], *stream_);
    begin_reduction(group, *stream_);
  }
}

void GradientReducer::join() {
  if (!behind_ || planned(store_.options().device) == Device::cpu) return;
  for (Work& work : under_way_) work.wait();
  under_way_.clear();
  for (size_t group = 0; group < progress_.size(); ++group) recorded_[group] = progress_[group].reduced;
}

void GradientReducer::repeat() {
  for (size_t group = 0; behind_ && group < progress_.size(); ++group) {
    progress_[group].reduced = recorded_[group];
  }
}

void GradientReducer::between_steps() {
  for (Communicator* ranks : ranks_) ranks->progress();
}

// What a micro-batch has left out, or nobody told of.
void GradientReducer::end_micro_batch() {
  for (size_t group = progress_.size(); group-- > 0;) {
    if (progress_[group].loan != nullptr && group != scattering_) begin_scatter(group);
  }
  end_scatter();
  stream_ = nullptr;
}

void GradientReducer::end_lane(Stream& stream) {
  if (!trees_.empty()) store_.settle_gradients(stream);
  for (size_t g = 0; g < trees_.size(); ++g) {
    if (!progress_[g].reduced) fold(store_.groups()[g], trees_[g], stream);
  }
}

const nn::ParamEntry& GradientReducer::entry_of(const Param& param) const {
  return store_.entries()[static_cast<size_t>(param.use->number)];
}

Loan& GradientReducer::lend(int64_t elements) {
  Loan* best = nullptr;
  for (const auto& loan : loans_) {
    const bool fits = !loan->out && loan->memory.numel() >= elements;
    if (fits && (best == nullptr || loan->memory.numel() < best->memory.numel())) best = loan.get();
  }
  if (best == nullptr) {
    const DType accum = accum_dtype(store_.options().compute);
    best = loans_.emplace_back(std::make_unique<Loan>()).get();
    best->arena = std::make_unique<Arena>("lent gradients", elements * size_of(accum) + Arena::kAlignment,
                                          store_.options().device);
    best->memory = allocate(*best->arena, accum, {elements});
  }
  best->out = true;
  return *best;
}

int64_t GradientReducer::lent_bytes() const {
  int64_t bytes = 0;
  for (const auto& loan : loans_) bytes += loan->memory.bytes();
  return bytes;
}

// What no step of backward has written, since nobody used what it was for.
void GradientReducer::settle(size_t group) {
  for (const nn::ParamEntry* entry : progress_[group].entries) entry->param.settle_grad(*stream_);
}

// One at a time: so the loans that are out at once do not depend on how fast ranks are.
void GradientReducer::begin_scatter(size_t group) {
  end_scatter();
  const nn::ParamGroup& g = store_.groups()[group];
  settle(group);
  const Tensor sum = progress_[group].loan->memory.rows(0, g.numel);
  scattering_ = group;
  scatter_ = nn::replicas(g, groups_)
                 .begin_reduce_scatter(sum, sum.rows(g.owned.begin, g.owned.end), ReduceOrder::any, *stream_);
}

void GradientReducer::end_scatter() {
  if (scattering_ == progress_.size()) return;
  scatter_.wait();
  const nn::ParamGroup& g = store_.groups()[scattering_];
  Progress& progress = progress_[scattering_];
  accumulate(progress.loan->memory.rows(g.owned.begin, g.owned.end), g.gradient, *stream_);
  store_.lend_gradients(scattering_, Tensor(), *stream_);
  progress.loan->out = false;
  progress.loan = nullptr;
  scattering_ = progress_.size();
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

void GradientReducer::begin_reduction(size_t group, Stream& stream) {
  const nn::ParamGroup& g = store_.groups()[group];
  const ReduceOrder order = stream.strict() ? ReduceOrder::fixed_tree : ReduceOrder::any;
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
    const Tensor owned = sum.rows(g.owned.begin, g.owned.end);
    under_way_.push_back(ranks.begin_reduce_scatter(sum, owned, order, stream));
  } else {
    under_way_.push_back(ranks.begin_all_reduce(sum, order, stream));
  }
  progress_[group].reduced = true;
}

void GradientReducer::reduce(Stream& stream) {
  const Span span(stream.profile(), "reduce_gradients");
  store_.settle_gradients(stream);
  for (size_t group = 0; group < progress_.size(); ++group) {
    if (!progress_[group].reduced && !store_.groups()[group].scattered) begin_reduction(group, stream);
  }
  for (Work& work : under_way_) work.wait();
  under_way_.clear();
}

Tensor GradientReducer::squared_norms(Stream& stream) {
  fill_zero(squared_norms_, stream);
  for (const Part& part : mine_) {
    note_kernel("sum_of_squares", Pass::backward, part.gradient);
    visit_kernels<kernels::SumOfSquaresKernels>(part.gradient, [&]<Device D, class T>() {
      kernels::sum_of_squares<D>(part.gradient.data<T>(), part.gradient.numel(),
                                 squared_norms_.data<double>() + part.norm_group * parts_ + part.place,
                                 *norm_arena_, stream);
    });
  }
  groups_.world().all_reduce(squared_norms_, ReduceOp::sum, ReduceOrder::any, stream).wait();
  return squared_norms_;
}

}  // namespace ziggurat::parallel
