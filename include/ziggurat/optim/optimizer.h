// AdamW over a whole ParamStore.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/nn/param_store.h>
#include <ziggurat/optim/adamw.h>

namespace ziggurat {

class Optimizer {
 public:
  // `store` is finalized and outlives the optimizer.
  Optimizer(nn::ParamStore& store, const OptimizerConfig& config);

  // One update of masters, moments and compute copies from the groups' reduced gradients, clipped as the
  // config says. `grad_norm` is that of the whole model.
  void update(double lr, double grad_norm, Stream& stream);

  void set_steps_done(int64_t steps) {
    steps_ = steps;
  }  // after loading a checkpoint: bias correction counts them

 private:
  nn::ParamStore& store_;
  OptimizerConfig config_;
  std::vector<std::vector<ParamRange>> ranges_;  // per group
  int64_t steps_ = 0;
};

}  // namespace ziggurat
