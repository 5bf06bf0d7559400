#include <algorithm>

#include <kernels/cpu/operand_copies.h>

#include <ziggurat/core/error.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

void prepare_all(PackedWeights& packed) {
  bool all = true;
  for (int64_t i = 0; i < packed.count(); ++i) all = all && packed.prepared(i, Side::forward);
  if (all) return;
  parallel_for(packed.count(), [&](int64_t i) {
    const OneThread alone;
    packed.prepare(i, Side::forward);
  });
}

// The last rows of x, zeros behind them; null where all rows are part of a whole product.
template <class O>
const O* last_rows(const O* x, int64_t rows, int64_t in, Arena& workspace) {
  const int64_t rest = rows % kPackedRows;
  if (rest == 0) return nullptr;
  O* last = workspace.take<O>(kPackedRows * in);
  if (DryRun::on()) return last;
  std::copy_n(x + (rows - rest) * in, rest * in, last);
  std::fill(last + rest * in, last + kPackedRows * in, O{});
  return last;
}

// y [cols] = sum + bias. Not inlined: see reductions.h.
template <class A, class T>
[[gnu::noinline]] void add_bias(const A* __restrict sum, const A* __restrict bias, int64_t cols,
                                T* __restrict y) {
  for (int64_t j = 0; j < cols; ++j) y[j] = T(sum[j] + bias[j]);
}

template <class A, class T>
[[gnu::noinline]] void round_to(const A* __restrict from, int64_t cols, T* __restrict y) {
  for (int64_t j = 0; j < cols; ++j) y[j] = T(from[j]);
}

}  // namespace

template <Device D, class T>
void packed_linear(const PackedLinearArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "packed_linear");
  using A = Accum<T>;
  if (g.rows == 0) return;
  prepare_all(*g.packed);
  with_operands<T>([&]<class Policy>(Policy) {
    using O = typename Policy::Operand;
    const ArenaScope scope(workspace);
    const O* x = Policy::matrix(g.x, g.rows * g.in, workspace, stream);
    const O* last = last_rows(x, g.rows, g.in, workspace);
    const int64_t products = (g.rows + kPackedRows - 1) / kPackedRows;  // with a matrix
    const int64_t widest = g.packed->out(0), threads = thread_count(), scratch = (kPackedRows + 1) * widest;
    A* const all_scratch = workspace.take<A>(threads * scratch);
    Stream quiet(stream.device());  // an epilogue a row: no span for each

    parallel_for(g.packed->count() * products, [&](int64_t i) {
      const int64_t matrix = i / products, begin = i % products * kPackedRows, first = matrix * widest;
      const int64_t rows = std::min(kPackedRows, g.rows - begin), cols = g.packed->out(matrix);
      A* const sums = all_scratch + (threads == 1 ? 0 : thread_index()) * scratch;
      A* const activated = sums + kPackedRows * widest;
      const O* a = rows == kPackedRows ? x + begin * g.in : last;
      packed_product_on_this_thread<D>(
          WeightProduct<O, A>{Side::forward, kPackedRows, cols, g.in, a, nullptr, g.packed, matrix, sums});
      const A* bias = g.bias == nullptr ? nullptr : g.bias + first;
      for (int64_t r = 0; r < rows; ++r) {
        A* const sum = sums + r * cols;
        T* const y = g.y + (begin + r) * g.out + first;
        if (g.activation != Activation::none) {
          bias_activation_forward<D>(BiasActivationArgs<A>{g.activation, 1, cols, sum, bias, activated},
                                     quiet);
          round_to(activated, cols, y);
        } else if (bias != nullptr) {
          add_bias(sum, bias, cols, y);
        } else {
          round_to(sum, cols, y);
        }
      }
    });
  });
}

template void packed_linear<Device::cpu>(const PackedLinearArgs<float>&, Arena&, Stream&);
template void packed_linear<Device::cpu>(const PackedLinearArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
