#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/ops/router.h>

namespace ziggurat::moe {

// What one MoE layer did on this rank since reset(): sums, so that ranks and micro-batches add up.
struct MoeStats {
  int64_t layer = 0;
  std::vector<int64_t> counts_before;  // [E] choices, before drops
  std::vector<int64_t> counts;         // [E] choices that kept their place
  int64_t tokens = 0, choices = 0, dropped = 0, micro_batches = 0;
  double entropy_sum = 0;             // over tokens, nats
  double balance_sum = 0, z_sum = 0;  // over micro-batches, without their coefficients
  double last_auxiliary_loss = 0;     // of the latest micro-batch, with the coefficients

  void reset();
  void add(const ops::Routing& routing);
};

}  // namespace ziggurat::moe
