#include <algorithm>
#include <cmath>

#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/infer/sampler.h>

namespace ziggurat::infer {

Sampler::Sampler(const SamplingOptions& options, int64_t vocabulary)
    : options_(options), vocabulary_(vocabulary) {
  check(options.temperature >= 0, ErrorKind::argument,
        "[sampler] expected a temperature of at least 0, got {}", options.temperature);
  check(options.top_k >= 0, ErrorKind::argument, "[sampler] expected a top_k of at least 0 (all), got {}",
        options.top_k);
  check(0 < options.top_p && options.top_p <= 1, ErrorKind::argument,
        "[sampler] expected a top_p in (0, 1], got {}", options.top_p);
  if (options_.top_k == 0 || options_.top_k > vocabulary) options_.top_k = vocabulary;
  candidates_.reserve(static_cast<size_t>(options_.top_k));
  cumulative_.reserve(static_cast<size_t>(options_.top_k));
}

template <class T>
int32_t Sampler::operator()(const T* logits, int64_t position, int64_t text) {
  if (options_.temperature == 0 || options_.top_k == 1) {
    return static_cast<int32_t>(std::max_element(logits, logits + vocabulary_) - logits);
  }
  keep_likeliest(logits);
  const Philox rng(options_.seed, Purpose::generation, static_cast<uint64_t>(text));
  return draw(static_cast<double>(rng.uniform(static_cast<uint64_t>(position))));
}

// candidates_ = the top_k, likeliest first. With all tokens allowed their order only matters to top_p.
template <class T>
void Sampler::keep_likeliest(const T* logits) {
  candidates_.clear();
  for (int64_t i = 0; i < options_.top_k; ++i) {
    candidates_.push_back({static_cast<double>(logits[i]), static_cast<int32_t>(i)});
  }
  if (options_.top_k < vocabulary_) {  // a heap whose top is the least likely candidate
    std::make_heap(candidates_.begin(), candidates_.end(), likelier);
    for (int64_t i = options_.top_k; i < vocabulary_; ++i) {
      if (!(static_cast<double>(logits[i]) > candidates_.front().logit)) continue;
      std::pop_heap(candidates_.begin(), candidates_.end(), likelier);
      candidates_.back() = {static_cast<double>(logits[i]), static_cast<int32_t>(i)};
      std::push_heap(candidates_.begin(), candidates_.end(), likelier);
    }
    std::sort_heap(candidates_.begin(), candidates_.end(), likelier);
  } else if (options_.top_p < 1) {
    std::sort(candidates_.begin(), candidates_.end(), likelier);
  }
}

int32_t Sampler::draw(double uniform) {
  const double largest =
      std::min_element(candidates_.begin(), candidates_.end(), likelier)->logit;  // "less" is likelier
  cumulative_.clear();
  double sum = 0;
  for (const Candidate& c : candidates_) {
    cumulative_.push_back(sum += std::exp((c.logit - largest) / options_.temperature));
  }
  if (options_.top_p < 1) {
    const auto last = std::lower_bound(cumulative_.begin(), cumulative_.end() - 1, options_.top_p * sum);
    cumulative_.erase(last + 1, cumulative_.end());
    sum = cumulative_.back();
  }
  const auto chosen = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, uniform * sum);
  return candidates_[static_cast<size_t>(chosen - cumulative_.begin())].token;
}

template int32_t Sampler::operator()(const float*, int64_t, int64_t);
template int32_t Sampler::operator()(const double*, int64_t, int64_t);

}  // namespace ziggurat::infer
