#include "tests/support/bare_model.h"

#include "tests/support/op_test.h"
#include "tests/support/source_dir.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::test {

model::ModelConfig tiny_model(const std::string& name, const std::vector<std::string>& overrides) {
  train::RunConfig config;
  load_config(config, source_dir() + "/configs/tiny/" + name + ".yaml", overrides);
  return config.model;
}

std::vector<int32_t> random_tokens(int64_t n, int64_t vocabulary, uint64_t seed) {
  const Philox rng(seed, Purpose::generation);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(
        static_cast<int32_t>(rng.bits(static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

BareModel::BareModel(const model::ModelConfig& config, DType dtype, Communicator* given_world, Device device)
    : world(given_world == nullptr ? *self : *given_world),
      layout(model::fit_to_ranks(config, world.size())),
      groups(world, ParallelPlan(world.size(), layout.expert_parallel_sizes())),
      store({.compute = dtype, .device = device, .trainable = false}),
      model(layout, store, groups) {
  store.finalize();
}

std::vector<double> BareModel::recomputed(const std::vector<int32_t>& tokens) {
  tape.begin({.training = false});
  const Var hidden = model.forward(
      tape, {.tokens = tokens.data(), .sequences = 1, .length = static_cast<int64_t>(tokens.size())});
  const char* head = layout.tied_embeddings ? "embed.token.weight" : "head.weight";
  return to_doubles(ops::logits(tape, hidden, store.find(head).param).value());
}

}  // namespace ziggurat::test
