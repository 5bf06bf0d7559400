// How each kind of optimizer treats each parameter: what it keeps of it, and one update.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/optim/adamw.h>
#include <ziggurat/optim/optimizer_config.h>
#include <ziggurat/optim/optimizer_state.h>

namespace ziggurat {

// The rule for a parameter: the config's kind, or AdamW for what Muon is not made for: it takes the hidden
// matrices, expert by expert, but not those of the vocabulary, routers, norms and biases.
OptimizerKind rule_for(const OptimizerConfig& config, const nn::ParamSpec& spec);

// Whether it takes a parameter matrix by matrix, so that no rank may own part of one.
inline bool takes_matrices(OptimizerKind kind) {
  return kind == OptimizerKind::muon || kind == OptimizerKind::adafactor;
}

// Of the learning rate of a parameter (model/width_rules.h).
double lr_scale(const OptimizerConfig& config, const nn::ParamSpec& spec);

// Where OptimizerConfig::average asks for one, the last of them.
inline constexpr const char* kAverage = "ema.w";
// All averages become what the weights are now.
void start_average(OptimizerState& state, Stream& stream);
std::vector<MomentSpec> moments_for(const OptimizerConfig& config, const nn::ParamSpec& spec);

// One parameter's tensors, flat, as far as this rank owns it.
struct Updated {
  const nn::ParamSpec& spec;
  int64_t first = 0;  // element of the global tensor
  Tensor master, gradient;
  Tensor rounded;  // bf16, written with round(master); or empty
  const std::vector<OptimizerState::Moment>& moments;
  // Runs of it that are consecutive in the global tensor, where it is not as a whole.
  std::span<const ParamRange> runs = {};
};

struct UpdateStep {
  double lr = 0;                       // before lr_scale()
  const double* grad_scale = nullptr;  // [1] on the device: kernels/clip.h
  int64_t step = 1;                    // updates so far, this one included; >= 1
  uint64_t seed = 0;                   // of rounding to bf16
};

// In the order of the stream. Where the scale is not finite nothing is updated.
void update(const OptimizerConfig& config, const Updated& parameter, const UpdateStep& step, Arena& workspace,
            Stream& stream);

}  // namespace ziggurat
