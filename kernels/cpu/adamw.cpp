#include <algorithm>
#include <array>
#include <cmath>

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/stochastic_rounding.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kBlock = 16384;  // elements of an update block: a few hundred kB, some ten microseconds

// The factors of one update, rounded to T once.
template <class T>
struct Factors {
  template <class P, class M>
  explicit Factors(const AdamWArgs<T, P, M>& g)
      : scale(T(*g.grad_scale)),
        beta1(T(g.beta1)),
        rest1(T(1 - g.beta1)),
        beta2(T(g.beta2)),
        rest2(T(1 - g.beta2)),
        keep(T(1 - g.lr * g.weight_decay)),
        // -expm1(t log(beta)) = 1 - beta^t without cancellation for beta near 1
        step_size(T(g.lr / -std::expm1(static_cast<double>(g.step) * std::log(g.beta1)))),
        inverse_root2(T(1 / std::sqrt(-std::expm1(static_cast<double>(g.step) * std::log(g.beta2))))),
        eps(T(g.eps)) {}
  T scale, beta1, rest1, beta2, rest2, keep, step_size, inverse_root2, eps;
};

template <class T>
void update_range(const AdamWArgs<T, T, T>& g, const Factors<T>& f, int64_t begin, int64_t end) {
  const T* __restrict gradient = g.gradient;
  T* __restrict p = g.master;
  T* __restrict m = g.moment1;
  T* __restrict v = g.moment2;
  for (int64_t i = begin; i < end; ++i) {
    const T grad = f.scale * gradient[i];
    m[i] = f.beta1 * m[i] + f.rest1 * grad;
    v[i] = f.beta2 * v[i] + f.rest2 * grad * grad;
    p[i] = f.keep * p[i] - f.step_size * m[i] / (std::sqrt(v[i]) * f.inverse_root2 + f.eps);
  }
}

void put(float value, uint32_t, float& to) { to = value; }
void put(float value, uint32_t random, bf16& to) { to = round_stochastically(value, random); }

// The same where masters or moments are bf16.
template <class P, class M>
void update_and_round(const AdamWArgs<float, P, M>& g, const Factors<float>& f, int64_t begin, int64_t end) {
  constexpr uint64_t kEach = 2 * Philox::kBatch;  // elements of a batch of blocks
  std::array<uint32_t, 4 * Philox::kBatch> words{};
  for (int64_t i = begin; i < end;) {
    const uint64_t element = g.first + static_cast<uint64_t>(i);
    size_t at = element % kEach;
    g.random.blocks((element - at) / 2, words);
    for (; at < kEach && i < end; ++at, ++i) {
      const RoundingBits random = rounding_bits(words[2 * at], words[2 * at + 1]);
      const float grad = f.scale * g.gradient[i];
      const float m = f.beta1 * static_cast<float>(g.moment1[i]) + f.rest1 * grad;
      const float v = f.beta2 * static_cast<float>(g.moment2[i]) + f.rest2 * grad * grad;
      const float p = f.keep * static_cast<float>(g.master[i]) -
                      f.step_size * m / (std::sqrt(v) * f.inverse_root2 + f.eps);
      put(m, random.moment1, g.moment1[i]);
      put(v, random.moment2, g.moment2[i]);
      put(p, random.master, g.master[i]);
    }
  }
}

// A loop of its own, over masters still in cache: gcc 12 does not vectorise an update that also rounds.
template <class T>
void round_range(const T* __restrict from, bf16* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = bf16(from[i]);
}

// Sixteen running sums: the order of additions is fixed here, so the compiler may vectorise without changing
// it.
template <class T>
double range_sum_of_squares(const T* x, int64_t n) {
  constexpr int64_t kSums = 16;
  std::array<double, kSums> sums{};
  const int64_t whole = n / kSums * kSums;
  for (int64_t i = 0; i < whole; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) {
      const double value = x[i + j];
      sums[static_cast<size_t>(j)] += value * value;
    }
  }
  for (int64_t i = whole; i < n; ++i) {
    const double value = x[i];
    sums[static_cast<size_t>(i - whole)] += value * value;
  }
  for (size_t width = kSums / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) sums[j] += sums[j + width];
  }
  return sums[0];
}

}  // namespace

template <Device D, class T, class P, class M>
void adamw_update(const AdamWArgs<T, P, M>& g, Stream& stream) {
  const Span span(stream.profile(), "adamw_update");
  if (DryRun::on() || !std::isfinite(*g.grad_scale)) return;
  const Factors<T> factors(g);
  parallel_for_blocks(g.n, kBlock, [&](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<P, T> && std::is_same_v<M, T>) {
      update_range(g, factors, begin, end);
    } else {
      update_and_round(g, factors, begin, end);
    }
    if constexpr (std::is_same_v<P, T>) {
      if (g.compute != nullptr) round_range(g.master + begin, g.compute + begin, end - begin);
    }
  });
}

template <Device D, class T>
void sum_of_squares(const T* x, int64_t n, double* sum, Arena&, Stream& stream) {
  const Span span(stream.profile(), "sum_of_squares");
  if (DryRun::on()) return;
  constexpr int64_t kMostBlocks = 1024, kLeastBlock = 4096;
  const int64_t block = std::max(kLeastBlock, (n + kMostBlocks - 1) / kMostBlocks);
  std::array<double, kMostBlocks> partial{};
  parallel_for_blocks(n, block, [&](int64_t begin, int64_t end) {
    partial[static_cast<size_t>(begin / block)] = range_sum_of_squares(x + begin, end - begin);
  });
  double total = 0;
  for (const double value : partial) total += value;
  *sum = total;
}

template void adamw_update<Device::cpu>(const AdamWArgs<float>&, Stream&);
template void adamw_update<Device::cpu>(const AdamWArgs<double>&, Stream&);
template void adamw_update<Device::cpu>(const AdamWArgs<float, float, bf16>&, Stream&);
template void adamw_update<Device::cpu>(const AdamWArgs<float, bf16, float>&, Stream&);
template void adamw_update<Device::cpu>(const AdamWArgs<float, bf16, bf16>&, Stream&);
template void sum_of_squares<Device::cpu, float>(const float*, int64_t, double*, Arena&, Stream&);
template void sum_of_squares<Device::cpu, double>(const double*, int64_t, double*, Arena&, Stream&);

}  // namespace ziggurat::kernels
