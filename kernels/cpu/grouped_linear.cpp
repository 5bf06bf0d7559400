#include <algorithm>
#include <vector>

#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// Rows of a unit: a handful of units per thread evens out experts of unequal load, and a sum of this many
// rows stays in cache until it is rounded.
constexpr int64_t kUnitRows = 256;
// Packed products take their rows in steps, so that there are few different ones: the library makes code for
// each.
constexpr int64_t kRowStep = 16;
constexpr int64_t kTileCols = 128;  // output features of a unit of the weight gradient

template <class T>
T* take(Arena& arena, int64_t n) {
  return static_cast<T*>(arena.allocate(n * static_cast<int64_t>(sizeof(T))));
}

// The operands of the products. On CPUs without bf16 dot products they are widened to f32 once, up front.
template <class T>
struct Same {
  using Operand = T;
  static const T* matrix(const T* x, int64_t, Arena&, Stream&) { return x; }
};
struct Widened {
  using Operand = float;
  static const float* matrix(const bf16* x, int64_t n, Arena& workspace, Stream& stream) {
    auto* wide = take<float>(workspace, n);
    convert<Device::cpu>(x, wide, n, stream);
    return wide;
  }
};

// Calls f with the operand policy of T on this CPU.
template <class T, class F>
void with_operands(const F& f) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (bf16_gemm() == Bf16Gemm::widened) return f(Widened{});
  }
  f(Same<T>{});
}

// Calls f(expert) once for every expert that has rows.
template <class T, class F>
void for_used_experts(const GroupedLinearArgs<T>& g, Arena& workspace, const F& f) {
  auto* used = take<char>(workspace, g.experts);
  std::fill(used, used + g.experts, 0);
  for (int64_t i = 0; i < g.segment_count; ++i) {
    if (g.segments[i].rows > 0) used[g.segments[i].expert] = 1;
  }
  for (int64_t e = 0; e < g.experts; ++e) {
    if (used[e] != 0) f(e);
  }
}

// Products of units of rows with their expert's weight, packed if there are copies.
template <class Policy, class T>
class ExpertProducts {
 public:
  using O = typename Policy::Operand;
  using A = Accum<T>;

  ExpertProducts(const GroupedLinearArgs<T>& g, Side side, Arena& workspace, Stream& stream)
      : g_(g),
        side_(side),
        n_(side == Side::forward ? g.out : g.in),
        k_(side == Side::forward ? g.in : g.out) {
    auto* weights = take<const O*>(workspace, g.experts);
    auto* stale = take<int64_t>(workspace, g.experts);
    int64_t stale_count = 0;
    for_used_experts(g, workspace, [&](int64_t e) {
      if (g.packed == nullptr) {
        weights[e] = Policy::matrix(g.weight + e * g.out * g.in, g.out * g.in, workspace, stream);
      } else if (!g.packed->prepared(e, side)) {
        stale[stale_count++] = e;
      }
    });
    weights_ = weights;
    parallel_for(stale_count, [&](int64_t i) {
      const OneThread alone;
      g.packed->prepare(stale[i], side);
    });
    if constexpr (std::is_same_v<T, bf16>) sums_ = take<float>(workspace, threads_ * kUnitRows * n_);
    if (g.packed != nullptr) {
      tails_ = take<O>(workspace, threads_ * kRowStep * k_);
      tail_sums_ = take<A>(workspace, threads_ * kRowStep * n_);
    }
  }

  // C [rows, n] = or += A [rows, k] op(W of the expert). The sum is rounded once.
  void multiply(int64_t expert, int64_t rows, const O* a, T* c, bool accumulate) const {
    if constexpr (std::is_same_v<T, bf16>) {
      float* sum = sums_ + thread() * kUnitRows * n_;
      product(expert, rows, a, sum, false);
      const int64_t n = rows * n_;
      if (accumulate) {
        for (int64_t i = 0; i < n; ++i) c[i] = bf16(float(c[i]) + sum[i]);
      } else {
        for (int64_t i = 0; i < n; ++i) c[i] = bf16(sum[i]);
      }
    } else {
      product(expert, rows, a, c, accumulate);
    }
  }

 private:
  int64_t thread() const { return threads_ == 1 ? 0 : thread_index(); }

  void product(int64_t expert, int64_t rows, const O* a, A* c, bool accumulate) const {
    if (g_.packed != nullptr) return packed_product(expert, rows, a, c, accumulate);
    gemm_on_this_thread<Device::cpu>(GemmArgs<O, A>{false, side_ == Side::forward, rows, n_, k_, a, k_,
                                                    weights_[expert], g_.in, c, n_, accumulate});
  }

  // Whole steps of rows in place, the rest in scratch padded to a step.
  void packed_product(int64_t expert, int64_t rows, const O* a, A* c, bool accumulate) const {
    if constexpr (!std::is_same_v<T, double>) {
      const auto run = [&](int64_t n, const O* from, A* to, bool add) {
        if (n == 0) return;
        packed_product_on_this_thread<Device::cpu>(
            WeightProduct<O, A>{side_, n, g_.out, g_.in, from, nullptr, g_.packed, expert, to, add});
      };
      const int64_t whole = rows / kRowStep * kRowStep, rest = rows - whole;
      run(whole, a, c, accumulate);
      if (rest == 0) return;
      O* tail = tails_ + thread() * kRowStep * k_;
      A* sum = tail_sums_ + thread() * kRowStep * n_;
      std::copy_n(a + whole * k_, rest * k_, tail);
      std::fill(tail + rest * k_, tail + kRowStep * k_, O{});
      run(kRowStep, tail, sum, false);
      A* to = c + whole * n_;
      for (int64_t i = 0; i < rest * n_; ++i) to[i] = accumulate ? to[i] + sum[i] : sum[i];
    }
  }

  const GroupedLinearArgs<T>& g_;
  Side side_;
  int64_t n_, k_;
  int64_t threads_ = thread_count();
  const O* const* weights_ = nullptr;  // by expert, where there are no packed copies
  float* sums_ = nullptr;              // [threads, kUnitRows, n] beside a bf16 C
  O* tails_ = nullptr;                 // [threads, kRowStep, k]
  A* tail_sums_ = nullptr;             // [threads, kRowStep, n]
};

struct Units {
  const Segment* begin;
  int64_t count;
};

// Segments cut at fixed rows, counted from each segment's own start.
Units cut(const Segment* segments, int64_t n, Arena& workspace) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += (segments[i].rows + kUnitRows - 1) / kUnitRows;
  auto* units = take<Segment>(workspace, count);
  Segment* next = units;
  for (int64_t i = 0; i < n; ++i) {
    const Segment& s = segments[i];
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
    const ExpertProducts<Policy, T> products(g, Side::forward, workspace, stream);
    const Units units = cut(g.segments, g.segment_count, workspace);
    parallel_for(units.count, [&](int64_t i) {
      const Segment& u = units.begin[i];
      const int64_t at = u.row_begin * g.out;
      products.multiply(u.expert, u.rows, x + u.row_begin * g.in, g.z + at, false);
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
// that segment `first` starts: those of its expert and, where sources are kept apart, its source.
template <class O, class T>
void weight_gradient_tile(const GroupedLinearGradArgs<T>& g, const O* dz, const O* x, const Segment* first,
                          int64_t tile) {
  using A = Accum<T>;
  const GroupedLinearArgs<T>& f = g.forward;
  const int64_t cols = std::min(kTileCols, f.out - tile);
  for (const Segment* s = first; s != f.segments + f.segment_count; ++s) {
    if (s->rows == 0 || s->expert != first->expert) continue;
    const bool same_source = s->source == first->source;
    if (g.dweight != nullptr && (same_source || g.dweight_stride == 0)) {
      A* dweight = g.dweight + first->source * g.dweight_stride + (s->expert * f.out + tile) * f.in;
      gemm_on_this_thread<Device::cpu>(GemmArgs<O, A>{true, false, cols, f.in, s->rows,
                                                      dz + s->row_begin * f.out + tile, f.out,
                                                      x + s->row_begin * f.in, f.in, dweight, f.in, true});
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
std::pair<const Segment**, int64_t> gradient_owners(const GroupedLinearGradArgs<T>& g, Arena& workspace) {
  const GroupedLinearArgs<T>& f = g.forward;
  const bool by_source = g.dweight_stride != 0 || g.dbias_stride != 0;
  auto** owners = take<const Segment*>(workspace, f.segment_count);
  int64_t count = 0;
  for (const Segment* s = f.segments; s != f.segments + f.segment_count; ++s) {
    const bool known = std::any_of(owners, owners + count, [&](const Segment* o) {
      return o->expert == s->expert && (!by_source || o->source == s->source);
    });
    if (s->rows > 0 && !known) owners[count++] = s;
  }
  return {owners, count};
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
    T* dz = take<T>(workspace, f.rows * f.out);
    bias_activation_backward<D>(
        BiasActivationGradArgs<T>{f.activation, f.rows, f.out, f.z, g.dy, dz, nullptr}, workspace, stream);
    dz_stored = dz;
  }
  with_operands<T>([&]<class Policy>(Policy) {
    using O = typename Policy::Operand;
    const ArenaScope scope(workspace);
    const O* dz = Policy::matrix(dz_stored, f.rows * f.out, workspace, stream);
    if (g.dweight != nullptr || g.dbias != nullptr) {
      const O* x = Policy::matrix(f.x, f.rows * f.in, workspace, stream);
      const auto [owners, owner_count] = gradient_owners(g, workspace);
      const int64_t tiles = (f.out + kTileCols - 1) / kTileCols;
      parallel_for(owner_count * tiles, [&, first = owners](int64_t i) {
        weight_gradient_tile<O>(g, dz, x, first[i / tiles], i % tiles * kTileCols);
      });
    }
    if (g.dx == nullptr) return;
    // dx = dz weight
    const ExpertProducts<Policy, T> products(f, Side::backward, workspace, stream);
    const Units units = cut(f.segments, f.segment_count, workspace);
    parallel_for(units.count, [&](int64_t i) {
      const Segment& u = units.begin[i];
      products.multiply(u.expert, u.rows, dz + u.row_begin * f.out, g.dx + u.row_begin * f.in,
                        g.accumulate_dx);
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
