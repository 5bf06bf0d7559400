#include <algorithm>
#include <limits>
#include <vector>

#include <ziggurat/bench/device_roof.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/kernels/device_roof.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/graph.h>

namespace ziggurat::bench {

double DeviceRoofs::flops_per_second(DType dtype) const {
  double best = 0;
  for (const Product& p : products) {
    if (p.dtype == dtype) best = std::max(best, p.flops_per_second);
  }
  return best;
}

namespace {

// Random values, as a step multiplies: zeros would cost a GPU less power, and so raise its clock.
template <Device D, class T>
void fill_randomly(T* to, int64_t n, Stream& stream) {
  constexpr int64_t kPiece = int64_t{1} << 18;  // again and again
  const Philox random(1, Purpose::test);
  std::vector<T> values(static_cast<size_t>(std::min(n, kPiece)));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = T(static_cast<float>(random.block(i / 4)[i % 4]) * 0x1p-31f - 1.0f);  // in [-1, 1]
  }
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t bytes = std::min(n - at, kPiece) * static_cast<int64_t>(sizeof(T));
    backend(D).copy(values.data(), to + at, bytes, stream);
  }
  stream.wait();
}

// The fastest of a linear layer's product and those of its gradients.
template <Device D, class T>
DeviceRoofs::Product measure_product(int64_t n, const DeviceRoofSizes& sizes, Stream& stream) {
  Arena data("operands of the roof", 3 * (n * n * static_cast<int64_t>(sizeof(T)) + Arena::kAlignment), D);
  Arena workspace("workspace of the roof", int64_t{64} << 20, D);
  T *const a = data.take_on_device<T>(n * n), *const b = data.take_on_device<T>(n * n),
           *const c = data.take_on_device<T>(n * n);
  fill_randomly<D>(a, n * n, stream);
  fill_randomly<D>(b, n * n, stream);
  double seconds = std::numeric_limits<double>::infinity();
  for (const auto& [transpose_a, transpose_b] : {std::pair(false, true), {false, false}, {true, false}}) {
    const kernels::GemmArgs<T, T> product{transpose_a, transpose_b, n, n, n, a, n, b, n, c, n};
    const auto multiply = [&] { kernels::gemm<D>(product, workspace, stream); };
    seconds = std::min(seconds, fastest_on_device(stream, multiply, sizes.repetitions));
  }
  return {dtype_of<T>(), n, 2.0 * static_cast<double>(n * n * n) / seconds};
}

template <Device D>
void measure_memory(DeviceRoofs& roofs, const DeviceRoofSizes& sizes, Stream& stream) {
  const int64_t n = sizes.bytes / static_cast<int64_t>(sizeof(float));
  Arena data("memory of the roof", 2 * sizes.bytes + (int64_t{1} << 20), D);
  float *const x = data.take_on_device<float>(n), *const y = data.take_on_device<float>(n),
               *const sums = data.take_on_device<float>(kernels::kReadSums);
  fill_randomly<D>(x, n, stream);
  const auto copy = [&] { backend(D).copy(x, y, sizes.bytes, stream); };
  const auto read = [&] { kernels::read_all<D>(x, n, sums, stream); };
  roofs.copy = 2.0 * static_cast<double>(sizes.bytes) / fastest_on_device(stream, copy, sizes.repetitions);
  roofs.read = static_cast<double>(sizes.bytes) / fastest_on_device(stream, read, sizes.repetitions);
}

template <Device D>
void measure_starts(DeviceRoofs& roofs, const DeviceRoofSizes& sizes, Stream& stream) {
  const auto fastest = [&](const auto& seconds_of) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < sizes.repetitions.means; ++i) best = std::min(best, seconds_of());
    return best;
  };
  const auto start_all = [&] {
    for (int i = 0; i < sizes.kernels; ++i) kernels::do_nothing<D>(stream);
  };
  roofs.kernel = fastest_on_device(stream, start_all, {0, sizes.repetitions.means}) / sizes.kernels;
  roofs.start = fastest([&] {
    const Timer timer;
    start_all();
    const double seconds = timer.seconds();
    stream.wait();
    return seconds / sizes.kernels;
  });
  roofs.round_trip = fastest([&] {
    const Timer timer;
    kernels::do_nothing<D>(stream);
    stream.wait();
    return timer.seconds();
  });
}

// What plans assume of it: train::kGraphNodeBytes.
template <Device D>
double bytes_of_recorded(int kernels, Stream& stream) {
  const auto record = [&](int n) {
    Graph graph = Graph::record(stream, [&] {
      for (int i = 0; i < n; ++i) kernels::do_nothing<D>(stream);
    });
    graph.launch(stream);
    stream.wait();
    return graph;
  };
  const Graph first = record(1);  // with what CUDA takes once
  const int64_t before = backend(D).free_memory();
  const Graph many = record(kernels);
  return static_cast<double>(before - backend(D).free_memory()) / kernels;
}

template <Device D>
DeviceRoofs measure(const DeviceRoofSizes& sizes) {
  Stream stream(D);
  DeviceRoofs roofs;
  for (const int64_t n : sizes.products) {
    roofs.products.push_back(measure_product<D, float>(n, sizes, stream));
    roofs.products.push_back(measure_product<D, bf16>(n, sizes, stream));
  }
  measure_memory<D>(roofs, sizes, stream);
  measure_starts<D>(roofs, sizes, stream);
  roofs.recorded = bytes_of_recorded<D>(sizes.recorded, stream);
  return roofs;
}

}  // namespace

DeviceRoofs measure_device_roofs(const DeviceRoofSizes& sizes) {
  if constexpr (kHasCuda) {
    return measure<Device::cuda>(sizes);
  } else {
    backend(Device::cuda);  // says what to do about it
    return {};
  }
}

}  // namespace ziggurat::bench
