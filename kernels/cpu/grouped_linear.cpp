#include <algorithm>
#include <vector>

#include <kernels/cpu/expert_products.h>

#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kTileCols = 128;  // output features of a unit of the weight gradient

// Segments cut at fixed rows, counted from each segment's own start.
Segments cut(const Segments& segments, Arena& workspace) {
  int64_t count = 0;
  for (const Segment& s : segments) count += (s.rows + kUnitRows - 1) / kUnitRows;
  auto* units = workspace.take<Segment>(count);
  Segment* next = units;
  for (const Segment& s : segments) {
    for (int64_t r = 0; r < s.rows; r += kUnitRows) {
      *next++ = {s.row_begin + r, std::min(kUnitRows, s.rows - r), s.expert, s.source};
    }
  }
  return {units, count};
}

}  // namespace

template <Device D, class T>
void grouped_linear_forward(const GroupedLinearArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "grouped_linear_forward");
  with_operands<T>([&]<class Policy>(Policy) {
    using O = typename Policy::Operand;
    using A = Accum<T>;
    const ArenaScope scope(workspace);
    const O* x = Policy::matrix(g.x, g.rows * g.in, workspace, stream);
    const Segments segments = segments_of(g.groups, g.rows, workspace);
    const ExpertProducts<Policy, T> products(g, segments, Side::forward, false, workspace, stream);
    const Segments units = cut(segments, workspace);
    products.reserve(units);
    parallel_for(units.count, [&](int64_t i) {
      const Segment& u = units.first[i];
      const int64_t at = u.row_begin * g.out;
      products.multiply(u.expert, u.rows, x + u.row_begin * g.in, g.z + at);
      const A* bias = g.bias == nullptr ? nullptr : g.bias + u.expert * g.out;
      if (bias == nullptr && g.activation == Activation::none) return;
      bias_activation_forward<D>(BiasActivationArgs<T>{g.activation, u.rows, g.out, g.z + at, bias,
                                                       g.y == nullptr ? nullptr : g.y + at},
                                 stream);
    });
  });
}

namespace {

// dweight += dz^T x and dbias += sum over rows of dz, for columns [tile, tile + kTileCols) of the gradients
// that segment `first`, of those up to `end`, starts: those of its expert and, where sources are kept apart,
// its source.
template <class O, class T>
void weight_gradient_tile(const GroupedLinearGradArgs<T>& g, const O* dz, const O* x, const Segment* first,
                          const Segment* end, int64_t tile) {
  using A = Accum<T>;
  const GroupedLinearArgs<T>& f = g.forward;
  const int64_t cols = std::min(kTileCols, f.out - tile);
  for (const Segment* s = first; s != end; ++s) {
    if (s->rows == 0 || s->expert != first->expert) continue;
    const bool same_source = s->source == first->source;
    if (g.dweight != nullptr && (same_source || g.dweight_stride == 0)) {
      A* dweight = g.dweight + first->source * g.dweight_stride + (s->expert * f.out + tile) * f.in;
      gemm_on_this_thread<Device::cpu>(
          GemmArgs<O, A>{true, false, cols, f.in, s->rows, dz + s->row_begin * f.out + tile, f.out,
                         x + s->row_begin * f.in, f.in, dweight, f.in, s != first || !g.overwrite_dweight});
    }
    if (g.dbias != nullptr && (same_source || g.dbias_stride == 0)) {
      A sums[kTileCols] = {};
      for (int64_t r = s->row_begin; r < s->row_begin + s->rows; ++r) {
        for (int64_t j = 0; j < cols; ++j) sums[j] += A(dz[r * f.out + tile + j]);
      }
      A* dbias = g.dbias + first->source * g.dbias_stride + s->expert * f.out + tile;
      for (int64_t j = 0; j < cols; ++j) dbias[j] += sums[j];
    }
  }
}

// The first non-empty segment of each gradient.
template <class T>
std::pair<const Segment**, int64_t> gradient_owners(const GroupedLinearGradArgs<T>& g,
                                                    const Segments& segments, Arena& workspace) {
  const bool by_source = g.dweight_stride != 0 || g.dbias_stride != 0;
  auto** owners = workspace.take<const Segment*>(segments.count);
  int64_t count = 0;
  for (const Segment& s : segments) {
    const bool known = std::any_of(owners, owners + count, [&](const Segment* o) {
      return o->expert == s.expert && (!by_source || o->source == s.source);
    });
    if (s.rows > 0 && !known) owners[count++] = &s;
  }
  return {owners, count};
}

template <class T>
void clear_without_rows(const GroupedLinearGradArgs<T>& g, const Segment* const* owners,
                        int64_t owner_count) {
  const int64_t size = g.forward.out * g.forward.in;
  parallel_for(g.forward.groups.experts, [&](int64_t e) {
    const bool has_rows =
        std::any_of(owners, owners + owner_count, [&](const Segment* o) { return o->expert == e; });
    if (!has_rows) std::fill_n(g.dweight + e * size, size, Accum<T>(0));
  });
}

}  // namespace

template <Device D, class T>
void grouped_linear_backward(const GroupedLinearGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "grouped_linear_backward");
  const GroupedLinearArgs<T>& f = g.forward;
  const ArenaScope outer(workspace);
  // dz = dy * activation'(z)
  const T* dz_stored = g.dy;
  if (f.activation != Activation::none) {
    T* dz = workspace.take_on_device<T>(f.rows * f.out);
    bias_activation_backward<D>(
        BiasActivationGradArgs<T>{f.activation, f.rows, f.out, f.z, g.dy, dz, nullptr}, workspace, stream);
    dz_stored = dz;
  }
  with_operands<T>([&]<class Policy>(Policy) {
    using O = typename Policy::Operand;
    const ArenaScope scope(workspace);
    const O* dz = Policy::matrix(dz_stored, f.rows * f.out, workspace, stream);
    const Segments segments = segments_of(f.groups, f.rows, workspace);
    if (g.dweight != nullptr || g.dbias != nullptr) {
      const O* x = Policy::matrix(f.x, f.rows * f.in, workspace, stream);
      const auto [owners, owner_count] = gradient_owners(g, segments, workspace);
      if (g.overwrite_dweight) clear_without_rows(g, owners, owner_count);
      const int64_t tiles = (f.out + kTileCols - 1) / kTileCols;
      parallel_for(owner_count * tiles, [&, first = owners](int64_t i) {
        weight_gradient_tile<O>(g, dz, x, first[i / tiles], segments.end(), i % tiles * kTileCols);
      });
    }
    if (g.dx == nullptr) return;
    // dx = dz weight
    const ExpertProducts<Policy, T> products(f, segments, Side::backward, g.accumulate_dx, workspace, stream);
    const Segments units = cut(segments, workspace);
    products.reserve(units);
    parallel_for(units.count, [&](int64_t i) {
      const Segment& u = units.first[i];
      products.multiply(u.expert, u.rows, dz + u.row_begin * f.out, g.dx + u.row_begin * f.in);
    });
  });
}

template void grouped_linear_forward<Device::cpu>(const GroupedLinearArgs<float>&, Arena&, Stream&);
template void grouped_linear_forward<Device::cpu>(const GroupedLinearArgs<bf16>&, Arena&, Stream&);
template void grouped_linear_forward<Device::cpu>(const GroupedLinearArgs<double>&, Arena&, Stream&);
template void grouped_linear_backward<Device::cpu>(const GroupedLinearGradArgs<float>&, Arena&, Stream&);
template void grouped_linear_backward<Device::cpu>(const GroupedLinearGradArgs<bf16>&, Arena&, Stream&);
template void grouped_linear_backward<Device::cpu>(const GroupedLinearGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
