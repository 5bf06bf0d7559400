// Text from a model, one token after another.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ziggurat/model/gpt.h>

namespace ziggurat::infer {

struct SamplingOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // sample among this many likeliest tokens; 0: all
  uint64_t seed = 1234;
  int32_t stop_token = -1;  // ends the text; -1: none
};

// A token drawn from softmax(logits / temperature) restricted to the top_k; a function of (options.seed,
// position). logits [vocab].
int32_t sample_token(const std::vector<double>& logits, const SamplingOptions& options, int64_t position);

// The new tokens after `prompt` (at least one token). The model sees the last `window` tokens, each time
// anew. `on_token` is called with every token as it comes.
std::vector<int32_t> generate(const model::Gpt& model, Tape& tape, std::vector<int32_t> prompt,
                              int64_t window, const SamplingOptions& options,
                              const std::function<void(int32_t)>& on_token = {});

}  // namespace ziggurat::infer
