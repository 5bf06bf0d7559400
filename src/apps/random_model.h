// A model of a config with initial weights, to be measured.
#pragma once

#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

// Its weights lie in panels, as texts are written from them. The ranks of `world` share the experts as far as
// they can; it must outlive the model.
class RandomModel {
 public:
  // `weights`: int8, or empty, as --weights. On a GPU they lie in rows.
  RandomModel(const train::RunConfig& config, Communicator& world, const std::string& weights, Device device)
      : layout_(model::fit_to_ranks(model::share_experts(config.model, world.size()), world.size())),
        groups_(world, ParallelPlan(world.size(), layout_.expert_parallel_sizes())),
        store_({.compute = train::compute_dtype(config.precision), .device = device, .trainable = false}),
        model_(layout_, store_, groups_) {
    check(weights.empty() || config.precision != train::Precision::fp64, ErrorKind::argument,
          "--weights int8: the config computes in fp64; set precision=bf16 or fp32");
    check(device == Device::cpu || (weights.empty() && config.precision != train::Precision::fp64),
          ErrorKind::argument, "--device cuda: of weights in bf16 and fp32: leave --weights out");
    store_.finalize();
    if (device != Device::cpu) return;
    weights == "int8" ? store_.to_int8_panels() : store_.to_panels();
  }
  const model::Gpt& model() const { return model_; }
  const nn::ParamStore& store() const { return store_; }
  const model::ModelConfig& layout() const { return layout_; }

 private:
  model::ModelConfig layout_;
  ProcessGroups groups_;
  nn::ParamStore store_;
  model::Gpt model_;
};

}  // namespace ziggurat::apps
