#include <algorithm>
#include <cmath>
#include <limits>

#include <kernels/cpu/reductions.h>

#include <ziggurat/kernels/distillation.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 8;     // of a unit of work
constexpr int64_t kBlock = 512;  // columns at a time, whose gradients stay in the first cache

// The sum of e^(scale x[j] - shift). Not inlined, like the next: see reductions.h.
template <class A>
[[gnu::noinline]] A scaled_exp_sum(const A* x, A scale, A shift, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += vexp(scale * x[j] - shift);
  return sum;
}

// What a row's gradients are made of.
template <class A>
struct Row {
  A scale, lse_p, lse_q, lse_z;  // log of the sums of exponentials: of scale t, scale z, z
  A of_softmax, of_difference;   // g (1 + 2 z_loss lse_z), g weight T
};

// Of n columns: the part of the divergence; y = dz. At scale 1 q is softmax(z).
template <class A>
[[gnu::noinline]] A distil(const Row<A>& r, const A* z, const A* t, A* y, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    const A log_p = t[j] - r.lse_p, log_q = z[j] - r.lse_q, p = vexp(log_p);
    sum += p * (log_p - log_q);
    y[j] = (r.of_softmax + r.of_difference) * vexp(log_q) - r.of_difference * p;
  }
  return sum;
}

template <class A>
[[gnu::noinline]] A distil_scaled(const Row<A>& r, const A* z, const A* t, A* y, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    const A log_p = r.scale * t[j] - r.lse_p, log_q = r.scale * z[j] - r.lse_q, p = vexp(log_p);
    sum += p * (log_p - log_q);
    y[j] = r.of_softmax * vexp(z[j] - r.lse_z) + r.of_difference * (vexp(log_q) - p);
  }
  return sum;
}

template <class A, class G>
[[gnu::noinline]] void round_row(const A* x, G* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = G(x[j]);
}

template <class A>
double log_of(const ExponentialSums<A>& sums, int64_t row) {
  return double(sums.maximum[row]) + std::log(sums.sum[row]);
}

template <class A, class G>
void distil_row(const DistillationTileArgs<A, G>& g, int64_t i) {
  G* const gradient = g.gradient == nullptr ? nullptr : g.gradient + i * g.stride;
  if (g.first) g.divergence[i] = 0;
  if (g.targets[i] == g.ignore_index) {
    if (gradient != nullptr) std::fill_n(gradient, g.stride, G{});
    return;
  }
  const double lse_z = g.losses[i].cross_entropy + double(g.target_logit[i]);
  const bool scaled = g.of_student.sum != nullptr;
  const Row<A> row{A(g.scale),
                   A(log_of(g.of_teacher, i)),
                   A(scaled ? log_of(g.of_student, i) : lse_z),
                   A(lse_z),
                   A(*g.grad_scale * (1 + 2 * g.z_loss * lse_z)),
                   A(*g.grad_scale * *g.weight / g.scale)};
  const A *z = g.student + i * g.stride, *t = g.teacher + i * g.teacher_stride;
  alignas(64) A block[kBlock];
  double divergence = 0;
  for (int64_t j = 0; j < g.cols; j += kBlock) {
    const int64_t n = std::min(kBlock, g.cols - j);
    divergence +=
        double(scaled ? distil_scaled(row, z + j, t + j, block, n) : distil(row, z + j, t + j, block, n));
    if (gradient != nullptr) round_row(block, gradient + j, n);
  }
  g.divergence[i] += divergence;
  if (gradient != nullptr) std::fill(gradient + g.cols, gradient + g.stride, G{});
}

}  // namespace

template <Device D, class A>
void add_exponentials(const AddExponentialsArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "add_exponentials");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A* logits = g.logits + i * g.stride;
      A &max = g.sums.maximum[i], before = max;
      double& sum = g.sums.sum[i];
      max = A(g.scale) * row_max(logits, g.cols);
      if (!g.first) max = std::max(max, before);
      const double old = g.first ? 0 : sum * std::exp(double(before) - double(max));
      sum = old + double(scaled_exp_sum(logits, A(g.scale), max, g.cols));
    }
  });
}

template <Device D, class A>
void join_exponentials(const JoinExponentialsArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "join_exponentials");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      A max = std::numeric_limits<A>::lowest();
      const auto at = [&](int64_t part) { return part * g.rows + i; };
      for (int64_t p = 0; p < g.parts; ++p) {
        if (g.of_parts.sum[at(p)] != 0) max = std::max(max, g.of_parts.maximum[at(p)]);
      }
      double sum = 0;
      for (int64_t p = 0; p < g.parts; ++p) {
        if (g.of_parts.sum[at(p)] == 0) continue;
        sum += g.of_parts.sum[at(p)] * std::exp(double(g.of_parts.maximum[at(p)] - max));
      }
      g.sums.maximum[i] = max, g.sums.sum[i] = sum;
    }
  });
}

template <Device D, class A, class G>
void distillation_tile(const DistillationTileArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "distillation_tile");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) distil_row(g, i);
  });
}

template <Device D>
void add_divergences(const AddDivergencesArgs& g, Stream& stream) {
  const Span span(stream.profile(), "add_divergences");
  if (DryRun::on()) return;
  for (int64_t i = 0; i < g.rows; ++i) *g.sum += *g.weight * g.factor * g.divergence[i];
}

template void add_exponentials<Device::cpu>(const AddExponentialsArgs<float>&, Stream&);
template void add_exponentials<Device::cpu>(const AddExponentialsArgs<double>&, Stream&);
template void join_exponentials<Device::cpu>(const JoinExponentialsArgs<float>&, Stream&);
template void join_exponentials<Device::cpu>(const JoinExponentialsArgs<double>&, Stream&);
template void distillation_tile<Device::cpu>(const DistillationTileArgs<float, float>&, Stream&);
template void distillation_tile<Device::cpu>(const DistillationTileArgs<float, bf16>&, Stream&);
template void distillation_tile<Device::cpu>(const DistillationTileArgs<double, double>&, Stream&);
template void add_divergences<Device::cpu>(const AddDivergencesArgs&, Stream&);

}  // namespace ziggurat::kernels
