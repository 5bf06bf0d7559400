#include <algorithm>
#include <cmath>

#include <kernels/cpu/reductions.h>

#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kColumns = 2048;  // summed in A before the sum goes on in f64

// to[j] = factor * from[j]; not inlined: see reductions.h
template <class A, class G>
[[gnu::noinline]] void scale_row(const A* from, A factor, G* to, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = G(factor * from[j]);
}

}  // namespace

template <Device D, class A, class G>
void cross_entropy(const CrossEntropyArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "cross_entropy");
  parallel_for(g.rows, [&](int64_t i) {
    A* logits = g.logits + i * g.stride;
    G* dlogits = g.dlogits == nullptr ? nullptr : g.dlogits + i * g.stride;
    const int32_t target = g.targets[i];
    g.losses[i] = {};
    if (target == g.ignore_index) {
      if (dlogits != nullptr) std::fill(dlogits, dlogits + g.cols, G{});
      return;
    }

    const A target_logit = logits[target], max = row_max(logits, g.cols);
    double sum = 0;
    for (int64_t j = 0; j < g.cols; j += kColumns) {
      const int64_t n = std::min(kColumns, g.cols - j);
      sum += dlogits != nullptr ? exp_row(logits + j, max, logits + j, n) : exp_sum(logits + j, max, n);
    }
    const double log_sum_exp = double(max) + std::log(sum);
    g.losses[i] = {log_sum_exp - double(target_logit), g.z_loss * log_sum_exp * log_sum_exp, true,
                   target_logit >= max};

    if (dlogits != nullptr) {
      const double factor = g.grad_scale * (1 + 2 * g.z_loss * log_sum_exp) / sum;
      const A target_gradient = A(factor * double(logits[target]) - g.grad_scale);  // rounded to G once
      scale_row(logits, A(factor), dlogits, g.cols);
      dlogits[target] = G(target_gradient);
    }
  });
}

template void cross_entropy<Device::cpu>(const CrossEntropyArgs<float, float>&, Stream&);
template void cross_entropy<Device::cpu>(const CrossEntropyArgs<float, bf16>&, Stream&);
template void cross_entropy<Device::cpu>(const CrossEntropyArgs<double, double>&, Stream&);

}  // namespace ziggurat::kernels
