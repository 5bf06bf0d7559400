// The update of a whole ParamStore.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include <ziggurat/optim/adamw.h>
#include <ziggurat/optim/optimizer_config.h>
#include <ziggurat/optim/optimizer_state.h>

namespace ziggurat {

// Beyond these nothing is updated.
struct UpdateLimits {
  double norm = std::numeric_limits<double>::infinity();  // of the gradient
  double loss = std::numeric_limits<double>::infinity();  // the first column of losses, summed up
};

class Optimizer {
 public:
  // `store` is finalized; it and `groups` outlive the optimizer.
  Optimizer(nn::ParamStore& store, const ProcessGroups& groups, const OptimizerConfig& config);

  // One update of masters, moments and values from the groups' reduced gradients, clipped as the config says.
  // `squared_norms` f64 [parts] add up to that of the whole model (GradientReducer), `losses` f64 [n, parts]
  // or empty; both on the store's device. If the norm or a loss is not finite, or beyond its limit, nothing
  // is updated: whoever reads them sees that the scale is not finite, and takes the step back. Returns f64
  // [2] there, until the next update: the norm before clipping, and by what gradients were scaled. Nobody has
  // waited. Takes scratch where the kind of optimizer needs some. `behind`: as of OptimizerState::share().
  // Collective.
  Tensor update(double lr, const Tensor& squared_norms, const Tensor& losses, Arena& workspace,
                Stream& stream, const UpdateLimits& limits = {}, bool behind = false);

  OptimizerState& state() { return state_; }
  const OptimizerState& state() const { return state_; }

  int64_t steps_done() const { return steps_; }  // updates
  void set_steps_done(int64_t steps) {
    steps_ = steps;
  }  // after loading a checkpoint: bias correction counts them

 private:
  // A parameter, as far as this rank updates it.
  struct Item {
    const nn::ParamEntry* entry;
    Tensor master, gradient, rounded;  // flat; rounded may be empty
    std::vector<ParamRange> runs;      // Updated::runs
  };

  nn::ParamStore& store_;
  OptimizerConfig config_;
  OptimizerState state_;
  std::vector<Item> items_;
  Arena arena_;
  Tensor clipped_;  // norm, scale
  int64_t steps_ = 0;
};

}  // namespace ziggurat
