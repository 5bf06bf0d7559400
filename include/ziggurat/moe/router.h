#pragma once

#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/moe/moe_config.h>
#include <ziggurat/moe/moe_stats.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::moe {

// The learned gate of one layer: `<name>.weight` [E, hidden], in f32, without bias, as in DeepSpeed.
class Router {
 public:
  // `data_parallel`: all ranks that see other tokens of the batch; must outlive the router.
  Router(nn::ParamStore& store, const std::string& name, const MoeConfig& config, int64_t hidden,
         int64_t experts, int64_t layer, Communicator& data_parallel);

  // x [S, hidden]. sequence_length: tokens, for BalanceScope::sequence. Adds what it did, once per
  // micro-batch, to `sums`, as MoeStats::sums(), or where that is null to stats().
  ops::Routing operator()(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums = nullptr);

  MoeStats& stats() { return stats_; }

 private:
  MoeConfig config_;
  int64_t layer_;
  Communicator& data_parallel_;
  const Param* weight_;
  MoeStats stats_;

  // For BalanceScope::global_batch, else null: f64 [E] assignments over all ranks and the micro-batches of
  // the step so far.
  const Tensor* assignments_of_step_ = nullptr;
};

}  // namespace ziggurat::moe
