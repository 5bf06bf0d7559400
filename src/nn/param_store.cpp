#include <algorithm>
#include <atomic>

#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/memory/pages.h>
#include <ziggurat/nn/initial_values.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::nn {

namespace {
// Pieces start on cache lines, so that ranges can be handed to vector kernels as they are.
constexpr int64_t kAlignElements = 64;
int64_t align(int64_t n) { return (n + kAlignElements - 1) / kAlignElements * kAlignElements; }
}  // namespace

std::vector<Box> held_boxes(const ParamSpec& spec) {
  const Shape& shape = spec.global_shape;
  if (!spec.cut.empty()) return spec.cut;
  if (shape.rank() == 0) return {{shape, shape}};
  return {spec.expert_parallel == 0 ? rows_of(shape, 0, shape[0])
                                    : rows_of(shape, spec.row_begin, spec.row_end)};
}

Shape held_shape(const ParamSpec& spec) {
  const std::vector<Box> boxes = held_boxes(spec);
  if (boxes.size() == 1) return boxes[0].extent;
  int64_t rows = 0;
  for (const Box& box : boxes) rows += box.extent[0];
  return with(boxes[0].extent, 0, rows);
}

void for_each_held_box(const ParamSpec& spec, int64_t begin, int64_t end,
                       const std::function<void(const Box& box, int64_t at)>& f) {
  int64_t first = 0;  // of a held box
  for (const Box& held : held_boxes(spec)) {
    const int64_t n = held.numel(), from = std::clamp<int64_t>(begin - first, 0, n),
                  to = std::clamp<int64_t>(end - first, 0, n);
    int64_t at = first + from - begin;
    for (Box box : boxes_of(held.extent, from, to)) {
      for (int i = 0; i < held.begin.rank(); ++i)
        box.begin = with(box.begin, i, box.begin[i] + held.begin[i]);
      f(box, at);
      at += box.numel();
    }
    first += n;
  }
}

void for_each_held_run(const ParamSpec& spec, int64_t begin, int64_t end,
                       const std::function<void(int64_t first, int64_t at, int64_t n)>& f) {
  const Shape& shape = spec.global_shape;
  const Box all = shape.rank() == 0 ? Box{shape, shape} : rows_of(shape, 0, shape[0]);
  for_each_held_box(spec, begin, end, [&](const Box& box, int64_t at) {
    for_each_run(box, all, [&](int64_t in_box, int64_t in_all, int64_t n) { f(in_all, at + in_box, n); });
  });
}

std::vector<Box> cut_rows(const Shape& shape, const std::vector<int64_t>& pieces, int64_t part,
                          int64_t parts) {
  std::vector<Box> boxes;
  int64_t row = 0;
  for (const int64_t piece : pieces) {
    check(piece % parts == 0, ErrorKind::config,
          "parallel.tensor: {} rows of a weight {} cannot be cut into {} equal parts", piece, shape, parts);
    const int64_t share = piece / parts;
    boxes.push_back(rows_of(shape, row + part * share, row + (part + 1) * share));
    row += piece;
  }
  return boxes;
}

std::vector<Box> cut_columns(const Shape& shape, int64_t part, int64_t parts) {
  return {share_of(rows_of(shape, 0, shape[0]), shape.rank() - 1, part, parts)};
}

Box share_of(const Box& box, int dim, int64_t part, int64_t parts) {
  const int64_t share = box.extent[dim] / parts;
  check(share * parts == box.extent[dim], ErrorKind::config,
        "parallel.tensor, expert_tensor: dim {} of a weight {} cannot be cut into {} equal parts: choose a "
        "divisor of {}",
        dim, box.extent, parts, box.extent[dim]);
  return {with(box.begin, dim, box.begin[dim] + part * share), with(box.extent, dim, share)};
}

Tensor ParamStore::piece(const Tensor& slab, const ParamEntry& entry) {
  return slab.rows(entry.offset, entry.offset + entry.numel).reshape(held_shape(entry.spec));
}

Param& ParamStore::add(ParamSpec spec) {
  check(!arena_, ErrorKind::internal, "[params] '{}' added after finalize()", spec.name);
  check(by_name_.emplace(spec.name, entries_.size()).second, ErrorKind::internal,
        "[params] '{}' is registered twice", spec.name);
  ParamGroup& group = group_for(spec);
  ParamEntry entry;
  entry.numel = held_shape(spec).numel();
  entry.group = static_cast<int>(&group - groups_.data());
  entry.offset = group.numel;
  entry.use.number = static_cast<int>(entries_.size());
  if (entry.numel > 0)
    for_each_held_run(spec, 0, 1, [&](int64_t first, int64_t, int64_t) { entry.first = first; });
  entry.spec = std::move(spec);
  group.numel += align(std::max(entry.numel, entry.spec.room));
  group.owned = {0, group.numel};
  entries_.push_back(std::move(entry));
  return entries_.back().param;
}

// The last one of the kind, unless it is full.
ParamGroup& ParamStore::group_for(const ParamSpec& spec) {
  const DType dtype = spec.matrix ? options_.compute : accum_dtype(options_.compute);
  const int64_t most = options_.group_bytes / size_of(accum_dtype(options_.compute));
  const auto last = std::find_if(groups_.rbegin(), groups_.rend(), [&](const ParamGroup& g) {
    return g.expert_parallel == spec.expert_parallel && g.cut == !spec.cut.empty() && g.dtype == dtype;
  });
  const int64_t numel = align(std::max(held_shape(spec).numel(), spec.room));
  if (last != groups_.rend() && last->numel + numel <= most) return *last;
  ParamGroup& group = groups_.emplace_back();
  group.expert_parallel = spec.expert_parallel;
  group.cut = !spec.cut.empty();
  group.dtype = dtype;
  const bool per_source = options_.reproducible == Reproducible::strict && spec.expert_parallel > 1;
  group.sources = per_source ? spec.expert_parallel : 1;
  return group;
}

const Tensor& ParamStore::add_state(DType dtype, Shape shape) {
  check(!arena_, ErrorKind::internal, "[params] a state {} added after finalize()", shape);
  return states_.emplace_back(nullptr, dtype, shape, options_.device);
}

void ParamStore::shard(const ProcessGroups& groups, bool scatter_gradients) {
  check(!arena_, ErrorKind::internal, "[params] shard() after finalize()");
  for (ParamGroup& g : groups_) {
    const Communicator& ranks = replicas(g, groups);
    const int64_t share = align((g.numel + ranks.size() - 1) / ranks.size());
    g.numel = share * ranks.size();
    g.owned = {share * ranks.rank(), share * (ranks.rank() + 1)};
    g.scattered = scatter_gradients && g.sharded();
  }
}

IndexRange ParamStore::owned(const ParamEntry& entry) const {
  const IndexRange& owned = group_of(entry).owned;
  const auto inside = [&](int64_t at) { return std::clamp<int64_t>(at - entry.offset, 0, entry.numel); };
  return {inside(owned.begin), inside(owned.end)};
}

IndexRange ParamStore::kept(const ParamEntry& entry) const {
  return group_of(entry).scattered ? owned(entry) : IndexRange{0, entry.numel};
}

Tensor ParamStore::kept_gradient(const ParamEntry& entry) const {
  const ParamGroup& g = group_of(entry);
  if (!g.scattered) return g.gradient.rows(entry.offset, entry.offset + entry.numel);
  const IndexRange range = owned(entry);
  // An entry without owned elements may lie anywhere beside the slab.
  const int64_t at = range.size() == 0 ? 0 : entry.offset + range.begin - g.owned.begin;
  return g.gradient.rows(at, at + range.size());
}

Tensor ParamStore::owned_gradient(const ParamEntry& entry) const {
  const IndexRange range = owned(entry), first = kept(entry);
  return kept_gradient(entry).rows(range.begin - first.begin, range.end - first.begin);
}

void ParamStore::finalize() {
  const DType accum = accum_dtype(options_.compute);
  const auto elements_of_gradient = [](const ParamGroup& g) {
    return g.scattered ? g.owned.size() : g.sources * g.numel;
  };
  int64_t bytes = 0;
  for (const ParamGroup& g : groups_) {
    bytes += g.numel * size_of(g.dtype) + Arena::kAlignment;
    if (options_.trainable) bytes += elements_of_gradient(g) * size_of(accum) + Arena::kAlignment;
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
    g.gradient = allocate(*arena_, accum, {elements_of_gradient(g)});
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
    entry.param.version = &version_;
    if (options_.trainable) {
      entry.param.use = &entry.use;
      if (!g.scattered) entry.param.grad = piece(g.gradient, entry);
      entry.param.source_stride = g.sources > 1 ? g.numel : 0;
      if (entry.spec.product && g.sources == 1) entry.param.unwritten = &entry.unwritten;
    }
    draw(entry, pieces);
  }
  zero_gradients(stream);
  stream.wait();
}

void ParamStore::values_changed() {
  static std::atomic<uint64_t> latest{0};
  version_ = ++latest;
}

void ParamStore::to_panels() {
  check(arena_ && !options_.trainable && options_.device == Device::cpu, ErrorKind::internal,
        "[params] panels are for finished weights on the CPU that are not trained");
  for (ParamEntry& entry : entries_) {
    const Tensor& w = entry.param.value;
    if ((!entry.spec.product && !entry.spec.small_product) || entry.param.panels) continue;
    const int64_t out = w.dim(w.rank() - 2), in = w.dim(w.rank() - 1);
    visit_kernels<kernels::PanelLinearKernels>(
        w, [&]<Device D, class T>() { kernels::to_panels<D>(w.data<T>(), w.numel() / (out * in), out, in); });
    entry.param.panels = true;
  }
}

void ParamStore::expect_values(size_t group, Work arrival) { arrivals_[group] = std::move(arrival); }

void ParamStore::await_values(size_t group) const {
  if (const auto found = arrivals_.find(group); found != arrivals_.end()) found->second.wait();
}

void ParamStore::await_values() const {
  for (auto& [group, arrival] : arrivals_) arrival.wait();
}

void ParamStore::to_int8_panels() {
  check(
      arena_ && !options_.trainable && options_.device == Device::cpu && options_.compute != DType::f64,
      ErrorKind::internal,
      "[params] weights of 8 bits are for finished weights on the CPU, in f32 or bf16, that are not trained");
  std::vector<ParamEntry*> products;
  int64_t bytes = 0;
  for (ParamEntry& e : entries_) {
    if (!e.spec.product || e.param.panels) continue;
    products.push_back(&e);
    const int64_t in = e.param.value.dim(e.param.value.rank() - 1),
                  all = e.spec.global_shape[e.spec.global_shape.rank() - 1];
    check(in == all, ErrorKind::internal,
          "[params] {} of {} columns of {} are here: the scale of a row needs all of them", in, all,
          e.spec.name);
    bytes += kernels::Int8Weights::bytes(e.numel / in, in) + Arena::kAlignment;
  }
  int8_arena_ = std::make_unique<Arena>("weights of 8 bits", bytes);
  for (ParamEntry* e : products) {
    const Tensor w = e->param.value;
    const int64_t out = w.dim(w.rank() - 2), in = w.dim(w.rank() - 1), count = w.numel() / (out * in);
    void* const memory = int8_arena_->allocate(kernels::Int8Weights::bytes(count * out, in));
    visit_kernels<kernels::PanelLinearKernels>(w, [&]<Device D, class T>() {
      if constexpr (!std::is_same_v<T, double>) {
        kernels::quantise<D>(w.data<T>(), count, out, in, memory);
      }
    });
    e->param.value = Tensor(memory, w.dtype(), w.shape());
    e->param.panels = e->param.int8 = true;
    release_pages(w.raw(), w.bytes());
  }
  to_panels();
}

int64_t ParamStore::int8_bytes() const { return int8_arena_ ? int8_arena_->used() : 0; }

void ParamStore::draw(const ParamEntry& entry, HostPieces& pieces) {
  const Tensor& values = entry.param.value;
  if (is_meta(values.device())) return;
  const ParamSpec& spec = entry.spec;
  const int64_t row =
      values.rank() == 0 ? 1 : entry.numel / std::max<int64_t>(1, values.dim(0));  // what is held of one
  // On the host identical rows are drawn once and copied.
  const bool repeats = spec.identical_rows && values.device() == Device::cpu;
  const int64_t drawn = repeats ? std::min(row, entry.numel) : entry.numel;
  pieces.write(values.reshape({entry.numel}).rows(0, drawn), [&](const Tensor& piece, int64_t first) {
    for_each_held_run(spec, first, first + piece.numel(), [&](int64_t element, int64_t at, int64_t n) {
      draw_initial(spec, options_.seed, element, piece.rows(at, at + n));
    });
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
    if (!entry.param.grad) continue;
    for (int64_t s = 0; s < g.sources; ++s) fill_zero(entry.param.grad_of_source(s), stream);
  }
  for (const ParamGroup& g : groups_) {
    if (g.scattered && g.gradient) fill_zero(g.gradient, stream);
  }
}

void ParamStore::lend_gradients(size_t group, const Tensor& slab, Stream& stream) {
  int64_t written = 0;  // up to here somebody writes the slab, or has
  const auto zero_until = [&](int64_t end) { fill_zero(slab.rows(written, end), stream); };
  for (ParamEntry& entry : entries_) {
    if (static_cast<size_t>(entry.group) != group) continue;
    entry.param.grad = slab ? piece(slab, entry) : Tensor();
    entry.unwritten = slab && entry.param.unwritten != nullptr;
    if (!entry.unwritten) continue;
    zero_until(entry.offset);
    written = entry.offset + entry.numel;
  }
  if (slab) zero_until(slab.numel());
}

void ParamStore::settle_gradients(Stream& stream) {
  for (const ParamEntry& entry : entries_) {
    if (entry.param.grad) entry.param.settle_grad(stream);
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
