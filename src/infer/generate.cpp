#include <algorithm>
#include <cmath>
#include <numeric>

#include <ziggurat/core/philox.h>
#include <ziggurat/infer/generate.h>

namespace ziggurat::infer {

int32_t sample_token(const std::vector<double>& logits, const SamplingOptions& options, int64_t position) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const double x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const size_t kept = options.temperature <= 0 ? 1
                      : options.top_k > 0 ? std::min<size_t>(order.size(), static_cast<size_t>(options.top_k))
                                          : order.size();
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(kept), order.end(), likelier);
  if (kept == 1) return order[0];

  std::vector<double> cumulative(kept);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double excess = logits[static_cast<size_t>(order[i])] - logits[static_cast<size_t>(order[0])];
    cumulative[i] = sum += std::exp(excess / options.temperature);
  }
  const Philox rng(options.seed, Purpose::generation);
  const double u = sum * static_cast<double>(rng.uniform(static_cast<uint64_t>(position)));
  const auto chosen = std::upper_bound(cumulative.begin(), cumulative.end() - 1, u) - cumulative.begin();
  return order[static_cast<size_t>(chosen)];
}

std::vector<int32_t> generate(const model::Gpt& model, Tape& tape, std::vector<int32_t> prompt,
                              int64_t window, const SamplingOptions& options,
                              const std::function<void(int32_t)>& on_token) {
  check(!prompt.empty(), ErrorKind::argument, "[generate] the prompt must have at least one token");
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  std::vector<int32_t> added;
  for (int64_t i = 0; i < options.max_new_tokens; ++i) {
    tape.begin({.training = false});
    const auto length = std::min<int64_t>(static_cast<int64_t>(prompt.size()), window);
    const int32_t* visible = prompt.data() + prompt.size() - static_cast<size_t>(length);
    const Tensor logits = model.next_token_logits(tape, {visible, nullptr, 1, length}).value();
    std::vector<double> values(vocab);
    visit_device_dtype(logits, [&]<Device D, class T>() {
      std::transform(logits.data<T>(), logits.data<T>() + vocab, values.begin(),
                     [](T v) { return static_cast<double>(Accum<T>(v)); });
    });
    const int32_t token = sample_token(values, options, static_cast<int64_t>(prompt.size()));
    if (token == options.stop_token) break;
    prompt.push_back(token);
    added.push_back(token);
    if (on_token) on_token(token);
  }
  return added;
}

}  // namespace ziggurat::infer
