#include <algorithm>
#include <functional>
#include <numeric>

#include <ziggurat/bench/roof.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::bench {

namespace {

// The best of tries, until it stands still: clocks rise under load, the library makes code at the first call,
// and other processes only ever add time. Per second.
double best_rate(double amount, const std::function<void()>& work) {
  constexpr int kCalmTries = 8;  // without a gain
  constexpr double kGain = 1.01, kLeastSeconds = 0.1, kMostSeconds = 1;
  const Timer all;
  double best = 0, gained = 0;
  for (int calm = 0; all.seconds() < kLeastSeconds || (calm < kCalmTries && all.seconds() < kMostSeconds);
       ++calm) {
    const Timer timer;
    work();
    flight_log().note_progress();  // a run that measures is not one that hangs
    best = std::max(best, amount / timer.seconds());
    if (best > kGain * gained) gained = best, calm = 0;
  }
  return best;
}

// The ways in which a training step multiplies matrices [n, n]: each operand as it lies, and with a packed
// copy of the weight; into the dtype of sums and that of the operands.
template <class T>
double measure_products(int64_t n) {
  using A = Accum<T>;
  Arena data("roof", int64_t{1} << 27), workspace("roof workspace", int64_t{1} << 27);
  Stream stream;
  auto *a = data.take<T>(n * n), *b = data.take<T>(n * n);
  auto* c = data.take<A>(n * n);
  std::fill_n(a, n * n, T(0.01f));
  std::fill_n(b, n * n, T(0.01f));
  std::fill_n(c, n * n, A(0));
  const double flops = 2.0 * static_cast<double>(n * n * n);
  double best = 0;
  const auto measure = [&](const auto& work) { best = std::max(best, best_rate(flops, work)); };
  for (const auto& [transpose_a, transpose_b] : {std::pair(false, true), {false, false}, {true, false}}) {
    const kernels::GemmArgs<T, A> product{transpose_a, transpose_b, n, n, n, a, n, b, n, c, n};
    measure([&] { kernels::gemm<Device::cpu>(product, workspace, stream); });
  }
  [[maybe_unused]] auto* rounded = reinterpret_cast<T*>(c);
  if constexpr (!std::is_same_v<T, A>) {
    const kernels::GemmArgs<T, T> product{false, false, n, n, n, a, n, b, n, rounded, n};
    measure([&] { kernels::gemm<Device::cpu>(product, workspace, stream); });
  }
  if constexpr (!std::is_same_v<T, double>) {
    if (kernels::PackedWeights::supported<T>(n, n, n, kernels::Copies::forward)) {
      kernels::PackedWeights packed(b, n, n, n, kernels::Copies::forward, data);
      const kernels::WeightProduct<T, A> sums{kernels::Side::forward, n, n, n, a, b, &packed, 0, c};
      measure([&] { kernels::weight_product<Device::cpu>(sums, workspace, stream); });
      const kernels::WeightProduct<T, T> results{kernels::Side::forward, n, n, n, a, b, &packed, 0, rounded};
      if (!std::is_same_v<T, A>) {
        measure([&] { kernels::weight_product<Device::cpu>(results, workspace, stream); });
      }
    }
  }
  return best;
}

}  // namespace

double measure_gemm_roof(DType dtype) {
  constexpr int64_t n = 1152;  // rows that are whole pages apart would share lines of the cache
  switch (dtype) {
    case DType::bf16:  // on a CPU without bf16 products the best that its operands can reach is the f32
                       // product
      return kernels::bf16_gemm() == kernels::Bf16Gemm::widened ? measure_products<float>(n)
                                                                : measure_products<bf16>(n);
    case DType::f64: {  // plain loops: the smaller the operands, the nearer they lie
      double best = 0;
      for (const int64_t small : {64, 128, 256}) best = std::max(best, measure_products<double>(small));
      return best;
    }
    default:
      return measure_products<float>(n);
  }
}

double measure_memory_roof() {
  constexpr int64_t n = int64_t{1} << 25;  // 128 MiB an array
  Arena data("roof", int64_t{1} << 29);
  Stream stream;
  const Tensor x = allocate(data, DType::f32, {n}), y = allocate(data, DType::f32, {n});
  fill_zero(x);
  fill_zero(y);
  return best_rate(3.0 * double(x.bytes()),
                   [&] { kernels::accumulate<Device::cpu>(x.data<float>(), y.data<float>(), n, stream); });
}

double measure_read_roof() {
  constexpr int64_t n = int64_t{1} << 25;  // 256 MiB of whole numbers, whose sum the compiler may reorder
  constexpr int64_t kPiece = 1 << 14;
  Arena data("roof", int64_t{1} << 29);
  auto* x = data.take<uint64_t>(n);
  auto* sums = data.take<uint64_t>(n / kPiece);
  parallel_for_blocks(n, kPiece, [=](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 1); });
  const double best = best_rate(double(n * int64_t{sizeof(uint64_t)}), [&] {
    parallel_for_blocks(n, kPiece, [=](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t j = begin; j < end; ++j) sum += x[j];
      sums[begin / kPiece] = sum;
    });
  });
  check(std::accumulate(sums, sums + n / kPiece, uint64_t{0}) == uint64_t{n}, ErrorKind::internal,
        "[roof] the sum of {} ones is not {}", n, n);
  return best;
}

}  // namespace ziggurat::bench
