#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/infer/sampler.h>

namespace ziggurat::infer {

void check_sampling(const SamplingOptions& options) {
  check(options.temperature >= 0, ErrorKind::argument,
        "[sampler] expected a temperature of at least 0, got {}", options.temperature);
  check(options.top_k >= 0, ErrorKind::argument, "[sampler] expected a top_k of at least 0 (all), got {}",
        options.top_k);
  check(0 < options.top_p && options.top_p <= 1, ErrorKind::argument,
        "[sampler] expected a top_p in (0, 1], got {}", options.top_p);
  check(options.repetition_penalty > 0, ErrorKind::argument,
        "[sampler] expected a repetition_penalty above 0, got {}", options.repetition_penalty);
}

Sampler::Sampler(int64_t vocabulary, std::vector<TokenRange> allowed)
    : vocabulary_(vocabulary), allowed_(std::move(allowed)) {
  if (allowed_.empty()) allowed_ = {{0, static_cast<int32_t>(vocabulary)}};
  for (TokenRange& range : allowed_) {
    range.begin = static_cast<int32_t>(std::min<int64_t>(range.begin, vocabulary));
    range.end = static_cast<int32_t>(std::min<int64_t>(range.end, vocabulary));
    allowed_count_ += range.end - range.begin;
  }
  std::erase_if(allowed_, [](const TokenRange& range) { return range.begin == range.end; });
  check(allowed_count_ > 0, ErrorKind::argument,
        "[sampler] none of the {} tokens of the model's vocabulary is allowed", vocabulary);
  candidates_.reserve(static_cast<size_t>(allowed_count_));
  cumulative_.reserve(static_cast<size_t>(allowed_count_));
  penalised_.reserve(static_cast<size_t>(vocabulary));
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
int32_t Sampler::operator()(const T* logits, const SamplingOptions& options, const DrawPlace& place) {
  check_finite(logits, vocabulary_);
  if (options.repetition_penalty == 1) return choose(logits, options, place);
  return choose(penalised(logits, options.repetition_penalty, place.seen), options, place);
}

template <class T>
const double* Sampler::penalised(const T* logits, double penalty, std::span<const int32_t> seen) {
  penalised_.assign(logits, logits + vocabulary_);
  for (const int32_t token : seen) {  // from the model's own logit: once, however often the text has it
    const auto logit = static_cast<double>(logits[token]);
    penalised_[static_cast<size_t>(token)] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return penalised_.data();
}

template <class T>
int32_t Sampler::choose(const T* logits, const SamplingOptions& options, const DrawPlace& place) {
  if (options.temperature == 0 || options.top_k == 1) return likeliest(logits);
  keep_likeliest(logits, options.top_k, options.top_p < 1);
  const Philox rng(options.seed, Purpose::generation, static_cast<uint64_t>(place.text));
  return draw(options, static_cast<double>(rng.uniform(static_cast<uint64_t>(place.position))));
}

// std::max_element, of numbers that are finite: each lane keeps its first largest, which makes vector loops.
template <class T>
static const T* first_largest(const T* begin, const T* end) {
  constexpr size_t kLanes = 64;
  std::array<T, kLanes> largest;
  std::array<int32_t, kLanes> block{};  // where a lane has it from
  largest.fill(*begin);
  const auto blocks = static_cast<int32_t>((end - begin) / static_cast<int64_t>(kLanes));
  for (int32_t b = 0; b < blocks; ++b) {
    const T* const at = begin + b * static_cast<int64_t>(kLanes);
    for (size_t i = 0; i < kLanes; ++i) {
      block[i] = at[i] > largest[i] ? b : block[i];
      largest[i] = at[i] > largest[i] ? at[i] : largest[i];
    }
  }
  const T* first = begin;
  for (size_t i = 0; blocks > 0 && i < kLanes; ++i) {
    const T* const at = begin + static_cast<size_t>(block[i]) * kLanes + i;
    if (*at > *first || (*at == *first && at < first)) first = at;
  }
  for (const T* at = begin + blocks * static_cast<int64_t>(kLanes); at < end; ++at) {
    if (*at > *first) first = at;
  }
  return first;
}

template <class T>
int32_t Sampler::likeliest(const T* logits) const {
  const T* best = logits + allowed_.front().begin;
  for (const TokenRange& range : allowed_) {
    const T* const here = first_largest(logits + range.begin, logits + range.end);
    if (*here > *best) best = here;
  }
  return static_cast<int32_t>(best - logits);
}

// candidates_ = the top_k, likeliest first. With all tokens allowed their order only matters if asked for.
template <class T>
void Sampler::keep_likeliest(const T* logits, int64_t top_k, bool in_order) {
  const bool all = top_k == 0 || top_k >= allowed_count_;
  const auto k = static_cast<size_t>(all ? allowed_count_ : top_k);
  candidates_.clear();
  for (const TokenRange& range : allowed_) {
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
  } else if (in_order) {
    std::sort(candidates_.begin(), candidates_.end(), likelier);
  }
}

int32_t Sampler::draw(const SamplingOptions& options, double uniform) {
  const double largest =
      std::min_element(candidates_.begin(), candidates_.end(), likelier)->logit;  // "less" is likelier
  cumulative_.clear();
  double sum = 0;
  for (const Candidate& c : candidates_) {
    cumulative_.push_back(sum += std::exp((c.logit - largest) / options.temperature));
  }
  if (options.top_p < 1) {
    const auto last = std::lower_bound(cumulative_.begin(), cumulative_.end() - 1, options.top_p * sum);
    cumulative_.erase(last + 1, cumulative_.end());
    sum = cumulative_.back();
  }
  const auto chosen = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, uniform * sum);
  return candidates_[static_cast<size_t>(chosen - cumulative_.begin())].token;
}

template int32_t Sampler::operator()(const float*, const SamplingOptions&, const DrawPlace&);
template int32_t Sampler::operator()(const double*, const SamplingOptions&, const DrawPlace&);

}  // namespace ziggurat::infer
