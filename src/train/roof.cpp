#include <algorithm>
#include <numeric>

#include <ziggurat/core/timer.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/roof.h>

namespace ziggurat::train {

double measure_gemm_roof(DType dtype) {
  constexpr int64_t n = 1152;  // rows that are whole pages apart would share lines of the cache
  constexpr int kTries = 5;
  Arena data("roof", int64_t{1} << 27), workspace("roof workspace", int64_t{1} << 27);
  Stream stream;
  // On a CPU without bf16 products the best that bf16 operands can reach is the f32 product.
  const bool widened = dtype == DType::bf16 && kernels::bf16_gemm() == kernels::Bf16Gemm::widened;
  const Tensor a = allocate(data, widened ? DType::f32 : dtype, {n, n}),
               b = allocate(data, a.dtype(), {n, n});
  const Tensor c = allocate(data, accum_dtype(dtype), {n, n});
  fill_zero(a);
  fill_zero(b);
  double best = 0;
  visit_device_dtype(a, [&]<Device D, class T>() {
    for (int i = 0; i < kTries; ++i) {
      const Timer timer;
      kernels::gemm<D>(kernels::GemmArgs<T, Accum<T>>{false, true, n, n, n, a.data<T>(), n, b.data<T>(), n,
                                                      c.data<Accum<T>>(), n},
                       workspace, stream);
      best = std::max(best, 2.0 * n * n * n / timer.seconds());
      if (dtype == DType::f64) break;  // plain loops, seconds each
    }
  });
  return best;
}

double measure_memory_roof() {
  constexpr int64_t n = int64_t{1} << 25;  // 128 MiB an array
  constexpr int kTries = 5;
  Arena data("roof", int64_t{1} << 29);
  Stream stream;
  const Tensor x = allocate(data, DType::f32, {n}), y = allocate(data, DType::f32, {n});
  fill_zero(x);
  fill_zero(y);
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const Timer timer;
    kernels::accumulate<Device::cpu>(x.data<float>(), y.data<float>(), n, stream);
    best = std::max(best, 3.0 * double(x.bytes()) / timer.seconds());
  }
  return best;
}

double measure_read_roof() {
  constexpr int64_t n = int64_t{1} << 25;  // 256 MiB of whole numbers, whose sum the compiler may reorder
  constexpr int64_t kPiece = 1 << 14;
  constexpr int kTries = 5;
  Arena data("roof", int64_t{1} << 29);
  auto* x = data.take<uint64_t>(n);
  auto* sums = data.take<uint64_t>(n / kPiece);
  parallel_for_blocks(n, kPiece, [=](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 1); });
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const Timer timer;
    parallel_for_blocks(n, kPiece, [=](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t j = begin; j < end; ++j) sum += x[j];
      sums[begin / kPiece] = sum;
    });
    best = std::max(best, double(n * int64_t{sizeof(uint64_t)}) / timer.seconds());
    check(std::accumulate(sums, sums + n / kPiece, uint64_t{0}) == uint64_t{n}, ErrorKind::internal,
          "[roof] the sum of {} ones is not {}", n, n);
  }
  return best;
}

}  // namespace ziggurat::train
