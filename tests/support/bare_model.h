// A model with random weights, and the memory to run it without a cache.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/model/gpt.h>

namespace ziggurat::test {

// The model of configs/tiny/<name>.yaml.
model::ModelConfig tiny_model(const std::string& name, const std::vector<std::string>& overrides = {});

// Random token ids below `vocabulary`.
std::vector<int32_t> random_tokens(int64_t n, int64_t vocabulary, uint64_t seed = 5);

struct BareModel {
  // The ranks of `world` share the experts; none: this process holds them all. `device`: of the model; what
  // follows is of a CPU's.
  BareModel(const model::ModelConfig& config, DType dtype, Communicator* world = nullptr,
            Device device = Device::cpu);

  // Logits [tokens, padded vocab] after every token, in one pass.
  std::vector<double> recomputed(const std::vector<int32_t>& tokens);

  std::unique_ptr<Communicator> self = make_self_communicator();
  Communicator& world;
  model::ModelConfig layout;
  ProcessGroups groups;
  nn::ParamStore store;
  model::Gpt model;
  Arena activations{"a", int64_t{1} << 32}, gradients{"g", 1}, workspace{"w", int64_t{1} << 32};
  Stream stream;
  Tape tape{activations, gradients, workspace, stream};
};

}  // namespace ziggurat::test
