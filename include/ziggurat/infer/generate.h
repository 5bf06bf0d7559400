// Text from a model, one token after another.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ziggurat/infer/engine.h>

namespace ziggurat::infer {

// The new tokens after each prompt (at least one token each), without the stop token that ends some of them.
// They are written side by side, as many as the engine has room for. Text i draws the random numbers of text
// i. `on_token` is called with the text's number and every token as it comes. The engine must be idle.
struct GenerateOptions {
  int64_t max_new_tokens = 64;
  int32_t stop_token = -1;  // -1: none
  SamplingOptions sampling = {};
};
std::vector<std::vector<int32_t>> generate(Engine& engine, std::span<const std::vector<int32_t>> prompts,
                                           const GenerateOptions& options,
                                           const std::function<void(size_t, int32_t)>& on_token = {});

}  // namespace ziggurat::infer
