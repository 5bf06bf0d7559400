// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ziggurat::infer {

struct SamplingOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // sample among this many likeliest tokens; 0: all
  double top_p = 1.0;        // and of those among the likeliest that hold this share of their probability
  uint64_t seed = 1234;
  int32_t stop_token = -1;  // ends the text; -1: none
};

// Draws from softmax(logits / temperature) restricted to the top_k, then to their top_p (Holtzman et al.
// 2020).
class Sampler {
 public:
  // Throws Error(argument) unless 0 < top_p <= 1, top_k >= 0 and temperature >= 0.
  Sampler(const SamplingOptions& options, int64_t vocabulary);

  // logits: the first `vocabulary` ones are read. The token is a function of (logits, options, text,
  // position): texts that grow side by side have streams of their own. Among equally likely tokens the first
  // counts as likelier. Nothing is allocated.
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
  void keep_likeliest(const T* logits);
  int32_t draw(double uniform);

  SamplingOptions options_;
  int64_t vocabulary_;
  std::vector<Candidate> candidates_;
  std::vector<double> cumulative_;
};

}  // namespace ziggurat::infer
