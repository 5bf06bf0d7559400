#include <algorithm>

#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/packed_linear.h>
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
  auto group = std::find_if(groups_.begin(), groups_.end(),
                            [&](const ParamGroup& g) { return g.expert_parallel == spec.expert_parallel; });
  if (group == groups_.end()) {
    groups_.push_back({});
    group = groups_.end() - 1;
    group->expert_parallel = spec.expert_parallel;
    const bool per_source = options_.reproducible == Reproducible::strict && spec.expert_parallel > 1;
    group->sources = per_source ? spec.expert_parallel : 1;
  }
  ParamEntry entry;
  entry.numel = local_shape(spec).numel();
  entry.group = static_cast<int>(group - groups_.begin());
  entry.offset = group->numel;
  entry.spec = std::move(spec);
  group->numel += align(entry.numel);
  entries_.push_back(std::move(entry));
  return entries_.back().param;
}

void ParamStore::finalize() {
  const DType accum = accum_dtype(options_.compute);
  const bool copies = options_.compute != accum;
  int64_t bytes = 0;
  for (const ParamGroup& g : groups_) {
    const int64_t training = options_.trainable ? g.sources + 2 : 0;
    bytes += g.numel * ((1 + training) * size_of(accum) + (copies ? size_of(options_.compute) : 0));
    bytes += 8 * Arena::kAlignment;
  }
  arena_ = std::make_unique<Arena>("parameters", bytes, options_.device);
  for (ParamGroup& g : groups_) {
    g.master = allocate(*arena_, accum, {g.numel});
    if (copies) g.compute = allocate(*arena_, options_.compute, {g.numel});
    if (!options_.trainable) continue;
    g.gradient = allocate(*arena_, accum, {g.sources * g.numel});
    g.moment1 = allocate(*arena_, accum, {g.numel});
    g.moment2 = allocate(*arena_, accum, {g.numel});
    fill_zero(g.moment1);
    fill_zero(g.moment2);
  }
  for (ParamEntry& entry : entries_) {
    const ParamGroup& g = groups_[static_cast<size_t>(entry.group)];
    entry.param.value = piece(copies && entry.spec.matrix ? g.compute : g.master, entry);
    if (options_.trainable) {
      entry.param.grad = piece(g.gradient, entry);
      entry.param.source_stride = g.sources > 1 ? g.numel : 0;
      if (entry.spec.product_rows > 0 && g.sources == 1) entry.param.unwritten = &entry.unwritten;
    }
    draw(entry);
  }
  if (options_.step_tokens > 0 && options_.reproducible != Reproducible::strict) add_packed_copies();
  zero_gradients();
  refresh_compute_copies();
}

void ParamStore::add_packed_copies() {
  const int64_t most = options_.device == Device::meta ? Arena::kUnlimited : Arena::all_memory();
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

void ParamStore::expire_packed() {
  for (kernels::PackedWeights& weights : packed_) weights.expire();
}

int64_t ParamStore::packed_bytes() const { return packed_arena_ ? packed_arena_->used() : 0; }

void ParamStore::draw(const ParamEntry& entry) {
  const Tensor values = master(entry);
  if (values.device() == Device::meta) return;
  const ParamSpec& spec = entry.spec;
  const int64_t row = spec.global_shape.rank() == 0
                          ? 1
                          : spec.global_shape.numel() / std::max<int64_t>(1, spec.global_shape[0]);
  // Identical rows are drawn once and copied.
  const int64_t drawn = spec.identical_rows ? std::min(row, entry.numel) : entry.numel;
  draw_initial(spec, options_.seed, spec.row_begin * row, values.reshape({entry.numel}).rows(0, drawn));
  visit_float_dtype(values.dtype(), [&]<class T>() {
    T* p = values.data<T>();
    const int64_t copies = drawn > 0 ? entry.numel / drawn - 1 : 0;
    parallel_for(copies, [&](int64_t i) { std::copy(p, p + drawn, p + (i + 1) * drawn); });
  });
}

void ParamStore::zero_gradients() {
  for (ParamEntry& entry : entries_) {
    if (!entry.param.trainable()) continue;
    if (entry.param.unwritten != nullptr) {
      entry.unwritten = true;
      continue;
    }
    const ParamGroup& g = groups_[static_cast<size_t>(entry.group)];
    for (int64_t s = 0; s < g.sources; ++s) fill_zero(entry.param.grad_of_source(s));
  }
}

void ParamStore::settle_gradients() {
  for (const ParamEntry& entry : entries_) {
    if (entry.param.trainable()) entry.param.settle_grad();
  }
}

void ParamStore::refresh_compute_copies() {
  expire_packed();
  Stream stream(options_.device);
  for (ParamGroup& g : groups_) {
    if (!g.compute || options_.device == Device::meta) continue;
    kernels::convert<Device::cpu>(g.master.data<float>(), g.compute.data<bf16>(), g.numel, stream);
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
