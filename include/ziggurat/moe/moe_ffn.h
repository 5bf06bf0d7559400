// The feed-forward layers with experts.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/moe/experts.h>
#include <ziggurat/moe/router.h>
#include <ziggurat/moe/token_dispatcher.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::moe {

// y = sum over the chosen experts of weight * expert(x); zeros for a token that was dropped everywhere.
class MoeFfn {
 public:
  // Parameters `<name>.router.*` and `<name>.experts.*`. store and groups must outlive the layer.
  MoeFfn(nn::ParamStore& store, const std::string& name, const MoeConfig& config, const MoeShape& shape,
         const ProcessGroups& groups);

  // x [S, hidden] -> [S, hidden]. sequence_length is read for BalanceScope::sequence only. sums: where it
  // adds what it did, as MoeStats::sums(); null: stats().
  Var operator()(Tape& tape, Var x, int64_t sequence_length = 0, const Tensor* sums = nullptr);

  // The same in two parts: what is recorded between them goes on beside the exchange of tokens.
  struct Begun {
    ops::Routing routing;
    ExpertRows rows;
  };
  Begun begin(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums);
  Var end(Tape& tape, Begun begun);

  Router& router() { return router_; }

 private:
  Router router_;
  std::unique_ptr<TokenDispatcher> dispatcher_;
  Experts experts_;
};

// Residual MoE (DeepSpeed-MoE section 4.1): experts and a fixed MLP, the shared expert, side by side.
class ResidualMoeFfn {
 public:
  // Parameters `<name>.moe.*` (with `<name>.moe.coefficient.*` unless the mix is a sum) and `<name>.mlp.*`.
  ResidualMoeFfn(nn::ParamStore& store, const std::string& name, const MoeConfig& config,
                 const MoeShape& shape, const ProcessGroups& groups);

  Var operator()(Tape& tape, Var x, int64_t sequence_length = 0, const Tensor* sums = nullptr);

  Router& router() { return moe_.router(); }

 private:
  MoeFfn moe_;
  nn::Mlp mlp_;
  ResidualMix mix_;
  const Param *coefficient_weight_ = nullptr, *coefficient_bias_ = nullptr;  // [n, hidden], [n]: 2 of softmax
  int64_t layer_;
};

}  // namespace ziggurat::moe
