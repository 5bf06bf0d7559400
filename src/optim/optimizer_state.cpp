#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/nn/initial_values.h>
#include <ziggurat/optim/optimizer_state.h>

namespace ziggurat {

namespace {

// Without memory yet.
OptimizerState::Moment moment_of(const nn::ParamEntry& entry, const IndexRange& owned,
                                 const MomentSpec& spec) {
  const Shape& shape = entry.spec.global_shape;
  OptimizerState::Moment moment{spec.name, shape, entry.first + owned.begin, {}};
  int64_t n = owned.size();
  if (spec.over != MomentSpec::Over::elements) {
    const int64_t rows = shape[shape.rank() - 2], cols = shape[shape.rank() - 1], matrix = rows * cols;
    check(moment.first % matrix == 0 && n % matrix == 0, ErrorKind::internal,
          "[optimizer] {} of {}: this rank owns elements [{}, {}), no whole matrices", spec.name,
          entry.spec.name, moment.first, moment.first + n);
    const int64_t kept = spec.over == MomentSpec::Over::rows ? rows : cols;  // of a matrix
    moment.global_shape = shape.rank() == 2 ? Shape{kept} : Shape{shape.numel() / matrix, kept};
    moment.first = moment.first / matrix * kept;
    n = n / matrix * kept;
  }
  moment.held = Tensor(nullptr, DType::f32, {n});
  return moment;
}

}  // namespace

OptimizerState::OptimizerState(nn::ParamStore& store, const ProcessGroups& groups, Options options)
    : store_(store), ranks_(groups), options_(std::move(options)) {
  const DType accum = accum_dtype(store.options().compute);
  const DType of_moments = options_.bf16_moments ? DType::bf16 : accum;
  const auto has_masters = [&](const nn::ParamGroup& g) {
    return g.dtype != accum && !options_.bf16_masters;
  };
  int64_t bytes = 0;
  for (const nn::ParamGroup& g : store.groups()) {
    if (has_masters(g)) bytes += g.owned.size() * size_of(accum) + Arena::kAlignment;
  }
  for (const nn::ParamEntry& entry : store.entries()) {
    std::vector<Moment>& mine = moments_[&entry];
    for (const MomentSpec& spec : options_.moments(entry.spec)) {
      mine.push_back(moment_of(entry, store.owned(entry), spec));
      bytes += mine.back().held.numel() * size_of(of_moments) + Arena::kAlignment;
    }
  }
  arena_ = std::make_unique<Arena>("optimizer state", bytes, store.options().device);
  Stream stream(store.options().device);
  for (const nn::ParamGroup& g : store.groups()) {
    Group& mine = groups_.emplace_back();
    const Tensor values = g.values.rows(g.owned.begin, g.owned.end);
    if (!has_masters(g)) {
      mine.masters = values;
    } else {
      mine.rounded = values;
      mine.masters = allocate(*arena_, accum, {g.owned.size()});
      fill_zero(mine.masters, stream);  // also what lies between entries, which is rounded with them
    }
  }
  for (const nn::ParamEntry& entry : store.entries()) {
    for (Moment& moment : moments_.at(&entry)) {
      moment.held = allocate(*arena_, of_moments, moment.held.shape());
      fill_zero(moment.held, stream);
    }
  }
  stream.wait();
  draw_masters();
}

void OptimizerState::draw_masters() {
  if (is_meta(store_.options().device)) return;
  HostPieces pieces(int64_t{1} << 22);
  for (const nn::ParamEntry& entry : store_.entries()) {
    if (!group_of(entry).rounded) continue;
    const int64_t begin = store_.owned(entry).begin;
    pieces.write(master(entry), [&](const Tensor& piece, int64_t first) {
      nn::for_each_held_run(entry.spec, begin + first, begin + first + piece.numel(),
                            [&](int64_t element, int64_t at, int64_t n) {
                              nn::draw_initial(entry.spec, store_.options().seed, element,
                                               piece.rows(at, at + n));
                            });
    });
  }
}

Tensor OptimizerState::held(const Tensor& slab, const nn::ParamEntry& entry) const {
  const IndexRange owned = store_.owned(entry);
  // An entry without owned elements may lie anywhere beside the slab.
  const int64_t at = owned.size() == 0 ? 0 : entry.offset + owned.begin - store_.group_of(entry).owned.begin;
  return slab.rows(at, at + owned.size());
}

Tensor OptimizerState::rounded(const nn::ParamEntry& entry) const {
  const Tensor& slab = group_of(entry).rounded;
  return slab ? held(slab, entry) : Tensor();
}

int64_t OptimizerState::bytes_of_masters() const {
  int64_t bytes = 0;
  for (const Group& g : groups_) bytes += g.rounded ? g.masters.bytes() : 0;
  return bytes;
}

int64_t OptimizerState::bytes_of_moments() const {
  int64_t bytes = 0;
  for (const auto& [entry, moments] : moments_) {
    for (const Moment& moment : moments) bytes += moment.held.bytes();
  }
  return bytes;
}

void OptimizerState::publish(Stream& stream) {
  for (const Group& g : groups_) {
    if (!g.rounded) continue;
    visit_kernels<kernels::ElementwiseKernels>(g.rounded, [&]<Device D, class T>() {
      if constexpr (std::is_same_v<T, bf16>) {  // the one dtype that rounds
        kernels::convert<D>(g.masters.data<float>(), g.rounded.data<T>(), g.masters.numel(), stream);
      }
    });
  }
  share(stream);
}

void OptimizerState::share(Stream& stream, bool behind) {
  for (size_t group = 0; group < store_.groups().size(); ++group) {  // in the order of their first parameters
    const nn::ParamGroup& g = store_.groups()[group];
    if (!g.sharded()) continue;
    const Tensor mine = g.values.rows(g.owned.begin, g.owned.end);
    Communicator& ranks = nn::replicas(g, ranks_);
    if (behind) {
      store_.expect_values(group, ranks.begin_all_gather(mine, g.values, stream));
    } else {
      ranks.all_gather(mine, g.values, stream).wait();
    }
  }
  store_.values_changed();
}

}  // namespace ziggurat
