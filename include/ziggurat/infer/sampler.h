// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace ziggurat::infer {

// Ids in [begin, end).
struct TokenRange {
  int32_t begin = 0, end = 0;
  bool operator==(const TokenRange&) const = default;
};

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // sample among this many likeliest tokens; 0: all
  double top_p = 1.0;        // and of those among the likeliest that hold this share of their probability
  // Logits of tokens that the text has are divided by this, those below zero multiplied (Keskar et al. 2019,
  // CTRL); 1: nothing is.
  double repetition_penalty = 1.0;
  uint64_t seed = 1234;
};

// Throws Error(argument) unless 0 < top_p <= 1, top_k >= 0, temperature >= 0 and repetition_penalty > 0.
void check_sampling(const SamplingOptions& options);

// The ids below `vocabulary` that are text by `is_text`, and `stop_token`.
std::vector<TokenRange> allowed_tokens(int64_t vocabulary, int32_t stop_token,
                                       const std::function<bool(int32_t)>& is_text);

// Where a draw belongs. The token is a function of (logits, options, text, position): texts that grow side by
// side have streams of their own.
struct DrawPlace {
  int64_t position = 0, text = 0;
  std::span<const int32_t> seen = {};  // the text so far, for a repetition penalty
};

// Draws from softmax(logits / temperature) restricted to the allowed tokens, then to the top_k, then to their
// top_p (Holtzman et al. 2020).
class Sampler {
 public:
  // allowed: the only tokens that are ever drawn, ascending and apart; empty: the whole vocabulary. What of
  // them lies past the vocabulary is left out. Throws Error(argument) where nothing is left.
  explicit Sampler(int64_t vocabulary, std::vector<TokenRange> allowed = {});

  // logits: the first `vocabulary` ones are read. Among equally likely tokens the first counts as likelier.
  // Nothing is allocated. Throws Error(numeric) if a logit is not finite.
  template <class T>
  int32_t operator()(const T* logits, const SamplingOptions& options, const DrawPlace& place);

 private:
  struct Candidate {
    double logit;
    int32_t token;
  };
  static bool likelier(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }
  template <class T>
  const double* penalised(const T* logits, double penalty, std::span<const int32_t> seen);
  template <class T>
  int32_t choose(const T* logits, const SamplingOptions& options, const DrawPlace& place);
  template <class T>
  int32_t likeliest(const T* logits) const;
  template <class T>
  void keep_likeliest(const T* logits, int64_t top_k, bool in_order);
  int32_t draw(const SamplingOptions& options, double uniform);

  int64_t vocabulary_, allowed_count_ = 0;
  std::vector<TokenRange> allowed_;
  std::vector<Candidate> candidates_;
  std::vector<double> cumulative_, penalised_;
};

}  // namespace ziggurat::infer
