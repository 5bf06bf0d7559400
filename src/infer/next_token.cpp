#include <algorithm>
#include <cmath>

#include <ziggurat/core/error.h>
#include <ziggurat/infer/next_token.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {

double logit_at(const Tensor& logits, size_t row, int32_t token) {
  const auto at = static_cast<int64_t>(row) * logits.dim(1) + token;
  return logits.dtype() == DType::f64 ? logits.data<double>()[at]
                                      : static_cast<double>(logits.data<float>()[at]);
}

double NextToken::log_probability(const Tensor& logits, size_t row, int32_t token) const {
  return logit_at(logits, row, token) - log_sum_exp;
}

std::vector<NextToken> next_tokens(const Tensor& logits, int64_t vocabulary) {
  const int64_t rows = logits.dim(0), stride = logits.dim(1);
  const auto count = static_cast<size_t>(rows);
  std::vector<NextToken> result(count);
  std::vector<double> sum(count);
  const std::vector<int32_t> any_target(count, 0);
  visit_float_dtype(logits.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      std::vector<T> reference(count), maximum(count), target_logit(count);
      Stream stream;
      kernels::softmax_tile<Device::cpu>(
          kernels::SoftmaxTileArgs<T, T>{rows, vocabulary, stride, logits.data<T>(), any_target.data(), 0,
                                         nullptr, reference.data(), maximum.data(), sum.data(),
                                         target_logit.data(), nullptr},
          stream);
      parallel_for(rows, [&](int64_t r) {
        const auto i = static_cast<size_t>(r);
        const T* row = logits.data<T>() + r * stride;
        result[i] = {static_cast<int32_t>(std::find(row, row + vocabulary, maximum[i]) - row),
                     static_cast<double>(reference[i]) + std::log(sum[i])};
      });
    }
  });
  for (const NextToken& row : result) {
    check(std::isfinite(row.log_sum_exp) && row.likeliest < vocabulary, ErrorKind::numeric,
          "the model's logits are not finite: its weights are unusable");
  }
  return result;
}

std::vector<int32_t> likeliest_tokens(const Tensor& logits, size_t row, int64_t vocabulary, int64_t n) {
  std::vector<int32_t> best;
  visit_float_dtype(logits.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      const T* values = logits.data<T>() + static_cast<int64_t>(row) * logits.dim(1);
      for (int32_t v = 0; n > 0 && v < vocabulary; ++v) {
        if (std::ssize(best) == n && !(values[v] > values[best.back()])) continue;
        if (std::ssize(best) == n) best.pop_back();
        const auto place = std::upper_bound(best.begin(), best.end(), v,
                                            [&](int32_t a, int32_t b) { return values[a] > values[b]; });
        best.insert(place, v);
      }
    }
  });
  return best;
}

}  // namespace ziggurat::infer
