#include <algorithm>
#include <cmath>
#include <limits>

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
  if (options_.allowed.empty()) options_.allowed = {{0, static_cast<int32_t>(vocabulary)}};
  for (TokenRange& range : options_.allowed) {
    range.begin = static_cast<int32_t>(std::min<int64_t>(range.begin, vocabulary));
    range.end = static_cast<int32_t>(std::min<int64_t>(range.end, vocabulary));
    allowed_count_ += range.end - range.begin;
  }
  std::erase_if(options_.allowed, [](const TokenRange& range) { return range.begin == range.end; });
  check(allowed_count_ > 0, ErrorKind::argument,
        "[sampler] none of the {} tokens of the model's vocabulary is allowed", vocabulary);
  if (options_.top_k == 0 || options_.top_k > allowed_count_) options_.top_k = allowed_count_;
  candidates_.reserve(static_cast<size_t>(options_.top_k));
  cumulative_.reserve(static_cast<size_t>(options_.top_k));
}

std::vector<TokenRange> allowed_tokens(int64_t vocabulary, int32_t stop_token,
                                       const std::function<bool(int32_t)>& is_text) {
  std::vector<TokenRange> ranges;
  for (int32_t id = 0; id < vocabulary; ++id) {
    if (id != stop_token && !is_text(id)) continue;
    if (ranges.empty() || ranges.back().end != id) ranges.push_back({id, id});
    ++ranges.back().end;
  }
  return ranges;
}

namespace {

template <class T>
void check_finite(const T* logits, int64_t n) {
  int64_t broken = 0;  // counted, so that the loop is a vector loop
  for (int64_t i = 0; i < n; ++i) broken += !(std::abs(logits[i]) <= std::numeric_limits<T>::max());
  check(
      broken == 0, ErrorKind::numeric,
      "[sampler] {} of the model's {} logits are not finite: its weights are broken, as after a training run "
      "that diverged; take an earlier checkpoint",
      broken, n);
}

}  // namespace

template <class T>
int32_t Sampler::operator()(const T* logits, int64_t position, int64_t text) {
  check_finite(logits, vocabulary_);
  if (options_.temperature == 0 || options_.top_k == 1) return likeliest(logits);
  keep_likeliest(logits);
  const Philox rng(options_.seed, Purpose::generation, static_cast<uint64_t>(text));
  return draw(static_cast<double>(rng.uniform(static_cast<uint64_t>(position))));
}

template <class T>
int32_t Sampler::likeliest(const T* logits) const {
  const T* best = logits + options_.allowed.front().begin;
  for (const TokenRange& range : options_.allowed) {
    const T* const here = std::max_element(logits + range.begin, logits + range.end);
    if (*here > *best) best = here;
  }
  return static_cast<int32_t>(best - logits);
}

// candidates_ = the top_k, likeliest first. With all tokens allowed their order only matters to top_p.
template <class T>
void Sampler::keep_likeliest(const T* logits) {
  const auto k = static_cast<size_t>(options_.top_k);
  const bool all = options_.top_k == allowed_count_;
  candidates_.clear();
  for (const TokenRange& range : options_.allowed) {
    int32_t i = range.begin;
    for (; i < range.end && candidates_.size() < k; ++i) {
      candidates_.push_back({static_cast<double>(logits[i]), i});
      if (candidates_.size() == k && !all)  // a heap whose top is the least likely candidate
        std::make_heap(candidates_.begin(), candidates_.end(), likelier);
    }
    for (; i < range.end; ++i) {
      if (!(static_cast<double>(logits[i]) > candidates_.front().logit)) continue;
      std::pop_heap(candidates_.begin(), candidates_.end(), likelier);
      candidates_.back() = {static_cast<double>(logits[i]), i};
      std::push_heap(candidates_.begin(), candidates_.end(), likelier);
    }
  }
  if (!all) {
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
