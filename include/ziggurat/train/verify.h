// One run trained twice, side by side, as on two devices: where do they part?
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Of two tensors, or numbers: |a - b| / |b| in the L2 norm.
struct Deviation {
  std::string what;  // "loss", "gradient of blocks.0.mlp.up.weight", "first moment of ...", "weights"
  double difference = 0;
};

struct StepDeviation {
  int64_t step = 0;
  double loss = 0, other_loss = 0;  // of the two runs
  Deviation worst;                  // of all tensors and ranks
  // The first one beyond the tolerance in the order in which a step makes them: loss, gradients from the last
  // layer to the first, moments, weights.
  std::optional<Deviation> first;
};

// What tensors of the first steps may differ by where products in the precision's dtype are added up in
// another order, or rounded at other places: in bf16 a token may meet another expert for it. Moments that are
// rounded to bf16 differ by that.
double verify_tolerance(const RunConfig& config);

// Collective. Takes `steps` steps of both runs, which must be alike in everything that makes parameters, and
// compares after each; ends after the first step with a deviation. Both begin anew, in folders of their own
// that are removed in the end. The second run exchanges by `other_world`, of the same ranks as `world`.
// `progress(done, total)` hears of steps, of both runs together. Errors are those of the trainers.
void verify(const RunConfig& config, const RunConfig& other, int64_t steps, double tolerance,
            Communicator& world, Communicator& other_world,
            const std::function<void(const StepDeviation&)>& report,
            const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace ziggurat::train
