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

  // Of every entry of the store: which it is clipped with (optim/clip_groups.h), what GradientReducer is to
  // know. Without groups in the config all are 0.
  const std::vector<int>& clip_groups() const { return clip_groups_; }

  // One update of masters, moments and values from the groups' reduced gradients, clipped as the config says.
  // `squared_norms` f64 [clip groups, parts] add up to those of these groups (GradientReducer), `losses` f64
  // [n, parts] or empty; both on the store's device. If the norm of all or a loss is not finite, or beyond
  // its limit, nothing is updated: whoever reads them sees that the scale is not finite, and takes the step
  // back. Returns f64 [1, 2] or [1 + clip groups, 2] there, until the next update: the norm before clipping
  // of the whole model, and by what gradients were scaled; with groups in the config 1 or not finite, and
  // then come those of each group. Nobody has waited. Takes scratch where the kind of optimizer needs some.
  // `behind`: as of OptimizerState::share(). Collective.
  Tensor update(double lr, const Tensor& squared_norms, const Tensor& losses, Arena& workspace,
                Stream& stream, const UpdateLimits& limits = {}, bool behind = false);

  OptimizerState& state() { return state_; }
  const OptimizerState& state() const { return state_; }

  int64_t steps_done() const { return steps_; }  // updates
  void set_steps_done(int64_t steps) {
    steps_ = steps;
  }  // after loading a checkpoint: bias correction counts them

 private:
  void clip(const Tensor& squared_norms, const Tensor& losses, const UpdateLimits& limits, Stream& stream);

  // A parameter, as far as this rank updates it.
  struct Item {
    const nn::ParamEntry* entry;
    Tensor master, gradient, rounded;  // flat; rounded may be empty
    const double* grad_scale;          // in clipped_
    std::vector<ParamRange> runs;      // Updated::runs
  };

  nn::ParamStore& store_;
  OptimizerConfig config_;
  OptimizerState state_;
  std::vector<Item> items_;
  Arena arena_;
  std::vector<int> clip_groups_;
  Tensor clipped_;  // rows of norm and scale: of all, and where there are groups of each of them
  int64_t steps_ = 0;
};

}  // namespace ziggurat
