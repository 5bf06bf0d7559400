// The time of a token on a cluster: one forward over the next token of every text, item by item under the
// cluster's roofs (plan/step_time.h), one after another.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/model/inference_layout.h>
#include <ziggurat/plan/cluster.h>

namespace ziggurat::infer {

struct TokenTimeOptions {
  int ranks = 1;
  model::InferenceLayout layout = {};
  int64_t texts = 1;      // for each rank: a team of T ranks works on T times as many
  int64_t context = 128;  // tokens that each has already
};

struct TokenTerm {
  std::string name;
  double seconds = 0;
  int64_t count = 0;  // of a rank: kernels, or messages to others
  double bytes = 0;   // that it reads and writes, or sends
};

struct TokenTime {
  std::vector<TokenTerm> terms;
  double seconds = 0;
  double tokens_per_second = 0;  // of all ranks
  double memory = 0;             // bytes of a rank: weights, keys and values
};

// Of a model in bf16. Tokens choose experts evenly, so that of a layer's E experts 1 - (1 - 1/E)^choices are
// read; with software.dense_dispatch all that a rank has are: batched products over slots of every expert.
// Throws Error(argument) where the layout cannot be, Error(config) where the cluster has fewer ranks.
TokenTime time_of_token(const model::ModelConfig& config, const TokenTimeOptions& options,
                        const ClusterConfig& cluster);

}  // namespace ziggurat::infer
