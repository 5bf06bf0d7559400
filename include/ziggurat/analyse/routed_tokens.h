// Where a model's routers send the tokens of a text: what the findings about routing are made of.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ziggurat/data/sample_source.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::analyse {

struct RoutedLayer {
  int64_t layer = 0, experts = 0, top_k = 0;
  std::vector<int32_t> expert = {};  // [tokens, top_k], best first
  std::vector<uint8_t> kept = {};    // [tokens, top_k]: 0 where the expert was full
};

struct RoutedTokens {
  std::vector<int32_t> token, next, predicted;  // [tokens]: read, the true next one (-1: none), the likeliest
  std::vector<int32_t> position;                // in its sequence
  std::vector<int32_t> source;                  // which of several texts
  std::vector<RoutedLayer> layers;

  int64_t tokens() const { return static_cast<int64_t>(token.size()); }
};

// `config` without what is drawn anew in every step of training: dropout, jitter and noise of the choice.
train::RunConfig without_noise(train::RunConfig config);

// Adds the first `sequences` samples of `source`, in micro-batches of the config, routed as in training:
// overfull experts drop tokens. The model is built from without_noise(config), in this process alone.
// `progress(done)` hears of sequences.
void add_routed(model::Gpt& model, const train::RunConfig& config, const SampleSource& source,
                int64_t sequences, int32_t source_number, RoutedTokens& to,
                const std::function<void(int64_t done)>& progress = {});

}  // namespace ziggurat::analyse
