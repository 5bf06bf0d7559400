#include <algorithm>
#include <cmath>
#include <vector>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/random_normal.h>
#include <ziggurat/nn/initial_values.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::nn {

namespace {

// Standard deviation of a standard normal distribution that is cut at -2 and 2:
// sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
constexpr double kCutDeviation = 0.87962566103423978;

// Draws anew what lies beyond two standard deviations, element by element, until nothing does.
template <class T>
void cut(const ParamSpec& spec, uint64_t seed, int64_t first, double std, T* p, int64_t n) {
  parallel_for_blocks(n, 65536, [&](int64_t begin, int64_t end) {
    const OneThread one_thread;
    Stream stream;
    for (int64_t i = begin; i < end; ++i) {
      for (uint64_t attempt = 1; std::abs(p[i]) > T(2 * std); ++attempt) {
        const Philox again(seed, Purpose::init, hash_name(spec.name), attempt);
        kernels::random_normal<Device::cpu>(
            kernels::RandomNormalArgs<T>{again, static_cast<uint64_t>(first + i), std, p + i, 1}, stream);
      }
    }
  });
}

template <Device D, class T>
void draw(const Init& init, const Philox& rng, int64_t first, T* p, int64_t n) {
  const auto fill = [&](const auto& value_of) {
    parallel_for_blocks(n, 65536, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p[i] = T(value_of(static_cast<uint64_t>(first + i)));
    });
  };
  switch (init.kind) {
    case Init::Kind::normal:
    case Init::Kind::truncated_normal:           // before it is cut
      if constexpr (!std::is_same_v<T, bf16>) {  // drawn as f32, below
        Stream stream(D);
        kernels::random_normal<D>(
            kernels::RandomNormalArgs<T>{rng, static_cast<uint64_t>(first), init.scale, p, n}, stream);
      }
      break;
    case Init::Kind::uniform:
      fill([&](uint64_t i) { return init.scale * (2.0 * static_cast<double>(rng.uniform(i)) - 1.0); });
      break;
    case Init::Kind::constant:
      fill([&](uint64_t) { return init.scale; });
      break;
  }
}

void draw_rounded(const ParamSpec& spec, uint64_t seed, int64_t first, const Tensor& values) {
  std::vector<float> exact(static_cast<size_t>(std::min<int64_t>(values.numel(), 1 << 20)));
  const auto most = static_cast<int64_t>(exact.size());
  Stream stream;
  for (int64_t at = 0; at < values.numel(); at += most) {
    const int64_t n = std::min(most, values.numel() - at);
    draw_initial(spec, seed, first + at, Tensor(exact.data(), DType::f32, {n}));
    kernels::convert<Device::cpu>(exact.data(), values.data<bf16>() + at, n, stream);
  }
}

}  // namespace

void draw_initial(const ParamSpec& spec, uint64_t seed, int64_t first, const Tensor& values) {
  if (values.dtype() == DType::bf16) return draw_rounded(spec, seed, first, values);
  const Philox rng(seed, Purpose::init, hash_name(spec.name));
  const int64_t n = values.numel();
  // Identical rows all have the elements of row 0.
  const int64_t period = spec.identical_rows
                             ? spec.global_shape.numel() / std::max<int64_t>(1, spec.global_shape[0])
                             : INT64_MAX;
  visit_kernels<kernels::RandomNormalKernels>(values, [&]<Device D, class T>() {
    for (int64_t at = 0; at < n;) {
      const int64_t element = (first + at) % period, count = std::min(n - at, period - element);
      T* const drawn = values.data<T>() + at;
      Init init = spec.init;
      if constexpr (!std::is_same_v<T, bf16>) {
        if (init.kind == Init::Kind::truncated_normal) init.scale /= kCutDeviation;
        draw<D>(init, rng, element, drawn, count);
        if (init.kind == Init::Kind::truncated_normal) cut(spec, seed, element, init.scale, drawn, count);
        const int64_t scaled = init.first_factor == 1 ? 0 : std::min(count, init.first_elements - element);
        for (int64_t i = 0; i < scaled; ++i) {
          drawn[i] = T(drawn[i] * init.first_factor);
        }
      }
      at += count;
    }
  });
}

}  // namespace ziggurat::nn
