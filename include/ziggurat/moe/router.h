#pragma once

#include <functional>
#include <string>
#include <utility>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/moe/moe_config.h>
#include <ziggurat/moe/moe_stats.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::moe {

// The learned gate of one layer: `<name>.weight` [E, hidden], in f32, without bias, as in DeepSpeed; with
// MoeConfig::balance_bias also `<name>.balance_bias` [E], which has no gradient.
class Router {
 public:
  // `data_parallel`: all ranks that see other micro-batches. `tensor_parallel`: those that share the tokens
  // of one, of which each has as many. Both must outlive the router.
  Router(nn::ParamStore& store, const std::string& name, const MoeConfig& config, int64_t hidden,
         int64_t experts, int64_t layer, Communicator& data_parallel, Communicator& tensor_parallel);

  // x [S, hidden], and the routing of these tokens, which is decided among those of the micro-batch.
  // sequence_length: tokens, for BalanceScope::sequence. Adds what it did, once per micro-batch, to `sums`,
  // as MoeStats::sums(), or where that is null to stats().
  ops::Routing operator()(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums = nullptr);

  MoeStats& stats() { return stats_; }

  // From now on told of every routing; empty: nobody is.
  void observe(std::function<void(const ops::Routing&)> observer) { observer_ = std::move(observer); }

  // Loss-free balancing, after an optimizer step: bias_e += rate sign(mean load - load_e), with the loads of
  // all ranks and micro-batches since the statistics were reset, before drops (arXiv 2408.15664, algorithm
  // 1). Collective over `data_parallel`; does nothing without a bias or a rate.
  void balance(Stream& stream);

 private:
  MoeConfig config_;
  int64_t layer_;
  Communicator &data_parallel_, &tensor_parallel_;
  const Param* weight_;
  Param* bias_ = nullptr;
  const Tensor* loads_ = nullptr;  // f64 [E], of balance()
  MoeStats stats_;

  // For BalanceScope::global_batch, else null: f64 [E] assignments over all ranks and the micro-batches of
  // the step so far.
  const Tensor* assignments_of_step_ = nullptr;
  std::function<void(const ops::Routing&)> observer_;
};

}  // namespace ziggurat::moe
