#pragma once

#include <string>

#include <ziggurat/nn/layers.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/ops/grouped_linear.h>

namespace ziggurat::moe {

// Which experts a layer has and who holds them.
struct MoeShape {
  nn::MlpShape
      expert;  // every expert is such an MLP, cut over the ranks of `tensor` (ProcessGroups::expert_tp)
  nn::MlpShape residual;    // the MLP beside them, of a residual layer
  int64_t experts = 0;      // of the layer
  int expert_parallel = 1;  // ranks that share them
  int64_t layer = 0;        // part of the name of random streams
};

// This rank's experts: E MLPs of width C and hidden width F as stacked parameters, `<name>.up.weight`
// [E, F, C], `<name>.down.weight` [E, C, F], with SwiGLU `<name>.gate.weight` [E, F, C], with four matrices
// also `<name>.value.weight`, and biases [E, F] and [E, C]. E is the layer's number of experts divided by the
// ranks that share them.
// Where the ranks of `shape.expert.tensor` share their matrices (expert tensor parallelism), each has F / T
// of the hidden width: what it computes of every row adds up, over ranks, to the expert's output. The bias of
// that, [E, C], is in what the first of them computes, which alone holds it. In inference (tokens alike) each
// has C / T of the outputs, too, and gathers what the others compute: nothing is summed over ranks.
class Experts {
 public:
  // ep_rank: this rank's place in the expert-parallel group. identical: all experts start with the same
  // values.
  Experts(nn::ParamStore& store, const std::string& name, const MoeShape& shape, int ep_rank, bool identical);

  // x [R, C] -> [R, C], rows of local experts as `offsets` say (ops::grouped_linear).
  Var operator()(Tape& tape, Var x, const Tensor& offsets) const;

 private:
  nn::MlpKind kind_;
  nn::TensorParallel tensor_;
  const Param *gate_weight_ = nullptr, *gate_bias_ = nullptr;
  const Param *value_weight_ = nullptr, *value_bias_ = nullptr;
  const Param *up_weight_, *up_bias_ = nullptr;
  const Param *down_weight_, *down_bias_ = nullptr;
};

}  // namespace ziggurat::moe
