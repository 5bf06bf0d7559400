#include <algorithm>

#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/nn/initial_values.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::nn {

namespace {
// Pieces start on cache lines, so that ranges can be handed to vector kernels as they are.
constexpr int64_t kAlignElements = 64;
int64_t align(int64_t n) { return (n + kAlignElements - 1) / kAlignElements * kAlignElements; }
}  // namespace

Shape ParamStore::local_shape(const ParamSpec& spec) {
  const Shape& g = spec.global_shape;
  if (spec.expert_parallel == 0) return g;
  const int64_t rows = spec.row_end - spec.row_begin;
  switch (g.rank()) {
    case 1:
      return {rows};
    case 2:
      return {rows, g[1]};
    case 3:
      return {rows, g[1], g[2]};
    default:
      return {rows, g[1], g[2], g[3]};
  }
}

Tensor ParamStore::piece(const Tensor& slab, const ParamEntry& entry) {
  return slab.rows(entry.offset, entry.offset + entry.numel).reshape(local_shape(entry.spec));
}

Param& ParamStore::add(ParamSpec spec) {
  check(!arena_, ErrorKind::internal, "[params] '{}' added after finalize()", spec.name);
  check(by_name_.emplace(spec.name, entries_.size()).second, ErrorKind::internal,
        "[params] '{}' is registered twice", spec.name);
  const DType dtype = spec.matrix ? options_.compute : accum_dtype(options_.compute);
  auto group = std::find_if(groups_.begin(), groups_.end(), [&](const ParamGroup& g) {
    return g.expert_parallel == spec.expert_parallel && g.dtype == dtype;
  });
  if (group == groups_.end()) {
    groups_.push_back({});
    group = groups_.end() - 1;
    group->expert_parallel = spec.expert_parallel;
    group->dtype = dtype;
    const bool per_source = options_.reproducible == Reproducible::strict && spec.expert_parallel > 1;
    group->sources = per_source ? spec.expert_parallel : 1;
  }
  ParamEntry entry;
  entry.numel = local_shape(spec).numel();
  entry.group = static_cast<int>(group - groups_.begin());
  entry.offset = group->numel;
  const int64_t rows = spec.global_shape.rank() == 0 ? 0 : spec.global_shape[0];
  entry.first = rows == 0 ? 0 : spec.row_begin * (spec.global_shape.numel() / rows);
  entry.spec = std::move(spec);
  group->numel += align(entry.numel);
  group->owned = {0, group->numel};
  entries_.push_back(std::move(entry));
  return entries_.back().param;
}

const Tensor& ParamStore::add_state(DType dtype, Shape shape) {
  check(!arena_, ErrorKind::internal, "[params] a state {} added after finalize()", shape);
  return states_.emplace_back(nullptr, dtype, shape, options_.device);
}

void ParamStore::shard(const ProcessGroups& groups) {
  check(!arena_, ErrorKind::internal, "[params] shard() after finalize()");
  for (ParamGroup& g : groups_) {
    const Communicator& ranks = replicas(g, groups);
    const int64_t share = align((g.numel + ranks.size() - 1) / ranks.size());
    g.numel = share * ranks.size();
    g.owned = {share * ranks.rank(), share * (ranks.rank() + 1)};
  }
}

IndexRange ParamStore::owned(const ParamEntry& entry) const {
  const IndexRange& owned = group_of(entry).owned;
  const auto inside = [&](int64_t at) { return std::clamp<int64_t>(at - entry.offset, 0, entry.numel); };
  return {inside(owned.begin), inside(owned.end)};
}

void ParamStore::finalize() {
  const DType accum = accum_dtype(options_.compute);
  int64_t bytes = 0;
  for (const ParamGroup& g : groups_) {
    bytes += g.numel * size_of(g.dtype) + Arena::kAlignment;
    if (options_.trainable) bytes += g.sources * g.numel * size_of(accum) + Arena::kAlignment;
  }
  for (const Tensor& state : states_) bytes += state.bytes() + Arena::kAlignment;
  arena_ = std::make_unique<Arena>("parameters", bytes, options_.device);
  Stream stream(options_.device);
  HostPieces pieces(int64_t{1} << 22);
  for (ParamGroup& g : groups_) {
    g.values = allocate(*arena_, g.dtype, {g.numel});
    // Nobody writes what lies between pieces, but slabs are reduced and exchanged as a whole.
    if (options_.device == Device::cuda) fill_zero(g.values, stream);
    if (!options_.trainable) continue;
    g.gradient = allocate(*arena_, accum, {g.sources * g.numel});
    if (options_.device == Device::cuda) fill_zero(g.gradient, stream);
  }
  for (Tensor& state : states_) {
    state = allocate(*arena_, state.dtype(), state.shape());
    fill_zero(state, stream);
  }
  stream.wait();  // pieces come by another one
  for (ParamEntry& entry : entries_) {
    const ParamGroup& g = group_of(entry);
    entry.param.value = piece(g.values, entry);
    if (options_.trainable) {
      entry.param.grad = piece(g.gradient, entry);
      entry.param.source_stride = g.sources > 1 ? g.numel : 0;
      if (entry.spec.product_rows > 0 && g.sources == 1) entry.param.unwritten = &entry.unwritten;
    }
    draw(entry, pieces);
  }
  const bool packs = planned(options_.device) == Device::cpu && options_.reproducible != Reproducible::strict;
  if (options_.step_tokens > 0 && packs) add_packed_copies();
  zero_gradients(stream);
  stream.wait();
}

void ParamStore::add_packed_copies() {
  const int64_t most = is_meta(options_.device) ? Arena::kUnlimited : Arena::all_memory();
  packed_arena_ = std::make_unique<Arena>("packed weights", most, options_.device);
  for (ParamEntry& entry : entries_) {
    const Tensor& w = entry.param.value;
    const bool expert = entry.spec.expert_parallel > 0;
    int64_t rows = entry.spec.product_rows;
    const int64_t in = w.rank() > 0 ? w.dim(w.rank() - 1) : 0;
    if (rows == 0) continue;
    if (!options_.trainable) {  // the weights of linear layers, for kernels::packed_linear
      if (expert || rows != w.dim(0)) continue;
      rows = std::min(rows, kernels::kPackedColumns);
    }
    visit_float_dtype(w.dtype(), [&]<class T>() {
      if constexpr (!std::is_same_v<T, double>) {
        const auto copies = !options_.trainable ? std::optional(kernels::Copies::forward)
                            : expert            ? std::optional(kernels::Copies::both)
                                                : kernels::copies_that_pay<T>(options_.step_tokens);
        if (!copies || !kernels::PackedWeights::supported<T>(w.numel() / in, rows, in, *copies)) return;
        entry.param.packed =
            &packed_.emplace_back(w.data<T>(), w.numel() / in, rows, in, *copies, *packed_arena_);
      }
    });
  }
}

void ParamStore::values_changed() {
  for (kernels::PackedWeights& weights : packed_) weights.expire();
}

void ParamStore::to_panels() {
  check(arena_ && !options_.trainable && options_.device == Device::cpu && packed_.empty(),
        ErrorKind::internal, "[params] panels are for finished weights on the CPU that are not trained");
  for (ParamEntry& entry : entries_) {
    const Tensor& w = entry.param.value;
    if ((entry.spec.product_rows == 0 && !entry.spec.small_product) || entry.param.panels) continue;
    const int64_t out = w.dim(w.rank() - 2), in = w.dim(w.rank() - 1);
    visit_kernels<kernels::PanelLinearKernels>(w, [&]<Device D, class T>() {
      kernels::to_panels<D>(w.data<T>(), w.numel() / (out * in), out, in);
    });
    entry.param.panels = true;
  }
}

int64_t ParamStore::packed_bytes() const { return packed_arena_ ? packed_arena_->used() : 0; }

void ParamStore::draw(const ParamEntry& entry, HostPieces& pieces) {
  const Tensor& values = entry.param.value;
  if (is_meta(values.device())) return;
  const ParamSpec& spec = entry.spec;
  const int64_t row = spec.global_shape.rank() == 0
                          ? 1
                          : spec.global_shape.numel() / std::max<int64_t>(1, spec.global_shape[0]);
  // On the host identical rows are drawn once and copied.
  const bool repeats = spec.identical_rows && values.device() == Device::cpu;
  const int64_t drawn = repeats ? std::min(row, entry.numel) : entry.numel;
  pieces.write(values.reshape({entry.numel}).rows(0, drawn), [&](const Tensor& piece, int64_t first) {
    draw_initial(spec, options_.seed, entry.first + first, piece);
  });
  visit_float_dtype(values.dtype(), [&]<class T>() {
    T* p = values.data<T>();
    const int64_t copies = drawn > 0 ? entry.numel / drawn - 1 : 0;
    parallel_for(copies, [&](int64_t i) { std::copy(p, p + drawn, p + (i + 1) * drawn); });
  });
}

void ParamStore::zero_gradients(Stream& stream) {
  for (ParamEntry& entry : entries_) {
    if (!entry.param.trainable()) continue;
    if (entry.param.unwritten != nullptr) {
      entry.unwritten = true;
      continue;
    }
    const ParamGroup& g = group_of(entry);
    for (int64_t s = 0; s < g.sources; ++s) fill_zero(entry.param.grad_of_source(s), stream);
  }
}

void ParamStore::settle_gradients(Stream& stream) {
  for (const ParamEntry& entry : entries_) {
    if (entry.param.trainable()) entry.param.settle_grad(stream);
  }
}

const ParamEntry& ParamStore::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  check(found != by_name_.end(), ErrorKind::argument, "[params] no parameter '{}'", name);
  return entries_[found->second];
}

int64_t ParamStore::local_parameters() const {
  int64_t n = 0;
  for (const ParamEntry& entry : entries_) n += entry.numel;
  return n;
}

int64_t ParamStore::global_parameters() const {
  int64_t n = 0;
  for (const ParamEntry& entry : entries_) n += entry.spec.global_shape.numel();
  return n;
}

}  // namespace ziggurat::nn
