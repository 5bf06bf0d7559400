// Text from a model, one token after another.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ziggurat/infer/decoder.h>
#include <ziggurat/infer/sampler.h>

namespace ziggurat::infer {

// The new tokens after each prompt (at least one token each, at most decoder.sequences() prompts), which grow
// side by side; equal prompts are read once. The model sees the last decoder.context() tokens of a text.
// While they are all there is, a token costs one step; from then on each token shifts every position, so the
// window is read anew. `on_token` is called with the text's number and every token as it comes.
std::vector<std::vector<int32_t>> generate(Decoder& decoder, std::span<const std::vector<int32_t>> prompts,
                                           const SamplingOptions& options,
                                           const std::function<void(size_t, int32_t)>& on_token = {});

}  // namespace ziggurat::infer
