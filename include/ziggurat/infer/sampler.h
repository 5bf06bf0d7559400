// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace ziggurat::infer {

// Ids in [begin, end).
struct TokenRange {
  int32_t begin = 0, end = 0;
  bool operator==(const TokenRange&) const = default;
};

struct SamplingOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // sample among this many likeliest tokens; 0: all
  double top_p = 1.0;        // and of those among the likeliest that hold this share of their probability
  uint64_t seed = 1234;
  int32_t stop_token = -1;  // ends the text; -1: none
  // The only tokens that are ever drawn, ascending and apart; empty: the whole vocabulary. What of them lies
  // past the vocabulary is left out.
  std::vector<TokenRange> allowed = {};
};

// The ids below `vocabulary` that are text by `is_text`, and `stop_token`.
std::vector<TokenRange> allowed_tokens(int64_t vocabulary, int32_t stop_token,
                                       const std::function<bool(int32_t)>& is_text);

// Draws from softmax(logits / temperature) restricted to the allowed tokens, then to the top_k, then to their
// top_p (Holtzman et al. 2020).
class Sampler {
 public:
  // Throws Error(argument) unless 0 < top_p <= 1, top_k >= 0, temperature >= 0 and some token is allowed.
  Sampler(const SamplingOptions& options, int64_t vocabulary);

  // logits: the first `vocabulary` ones are read. The token is a function of (logits, options, text,
  // position): texts that grow side by side have streams of their own. Among equally likely tokens the first
  // counts as likelier. Nothing is allocated. Throws Error(numeric) if a logit is not finite.
  template <class T>
  int32_t operator()(const T* logits, int64_t position, int64_t text = 0);

 private:
  struct Candidate {
    double logit;
    int32_t token;
  };
  static bool likelier(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }
  template <class T>
  int32_t likeliest(const T* logits) const;
  template <class T>
  void keep_likeliest(const T* logits);
  int32_t draw(double uniform);

  SamplingOptions options_;
  int64_t vocabulary_, allowed_count_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<double> cumulative_;
};

}  // namespace ziggurat::infer
