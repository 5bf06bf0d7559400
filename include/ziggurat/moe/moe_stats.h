#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/nn/param_store.h>
#include <ziggurat/ops/router.h>

namespace ziggurat::moe {

// What one MoE layer did on this rank: sums, so that ranks and micro-batches add up.
struct MoeSums {
  std::vector<int64_t> counts_before;  // [E] choices, before drops
  std::vector<int64_t> counts;         // [E] choices that kept their place
  int64_t tokens = 0, choices = 0, dropped = 0, micro_batches = 0;
  double entropy = 0;         // over tokens, nats
  double balance = 0, z = 0;  // over micro-batches, without their coefficients
};

// From the values of MoeStats::sums(), which may be those of several ranks added up.
MoeSums moe_sums(std::span<const double> values);

// Since reset() these are kept where the layer computes, so that nobody waits for them in between.
class MoeStats {
 public:
  // Counts from the store's finalize() on, in memory of the store, which must outlive this.
  MoeStats(nn::ParamStore& store, int64_t layer, int64_t experts)
      : layer_(layer), sums_(store.add_state(DType::f64, {kernels::router_sums_size(experts)})) {}

  int64_t layer() const { return layer_; }
  void reset(Stream& stream) { fill_zero(sums_, stream); }
  const Tensor& sums() const { return sums_; }  // f64, on the device
  MoeSums read(Stream& stream) const;           // waits for the stream
  // total, f64 [2] where the layer computes, += balance and z-loss of the latest micro-batch, with the
  // coefficients.
  void add_losses(const Tensor& total, Stream& stream) const { ops::add_router_losses(sums_, total, stream); }

 private:
  int64_t layer_;
  const Tensor& sums_;  // f64: kernels::RouterSums, then counts_before and counts
};

// Of the sums of all these layers.
int64_t numbers_told(const std::vector<MoeStats*>& layers);

}  // namespace ziggurat::moe
