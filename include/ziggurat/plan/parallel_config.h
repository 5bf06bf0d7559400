// What a config says about how a job's ranks share the work, beside each layer's own expert-parallel size.
#pragma once

#include <ziggurat/comm/communicator.h>
#include <ziggurat/config/fields.h>

namespace ziggurat {

inline std::vector<EnumName> enum_names(AllToAll) {
  return {{AllToAll::automatic, "auto"}, {AllToAll::flat, "flat"}, {AllToAll::hierarchical, "hierarchical"}};
}

struct ParallelConfig {
  int ranks_per_node = 0;
  AllToAll all_to_all = AllToAll::automatic;
  int tensor = 1;
  int expert_tensor = 1;
  int zero = 0;
  bool overlap = true;
  int64_t bucket = int64_t{1} << 25;

  template <class V>
  void visit_fields(V& v) {
    v.field(
        "ranks_per_node", ranks_per_node,
        "ranks that exchange faster than others, consecutive ones; 0: those that share a machine's memory",
        at_least(0));
    v.field(
        "all_to_all", all_to_all,
        "between ranks on several nodes: flat sends to every rank; hierarchical exchanges inside nodes "
        "first, "
        "with fewer messages and twice the bytes; auto chooses by the size of blocks. Results are the same"
        " bits; GPUs that exchange by themselves go their own way");
    v.field(
        "tensor", tensor,
        "ranks that share each matrix of attention, MLPs and vocabulary, and the tokens between them "
        "(tensor and sequence parallelism); their micro-batches are the same. Experts are shared over all "
        "ranks, whatever this is",
        at_least(1), at_most(1 << 10));
    v.field("expert_tensor", expert_tensor,
            "consecutive ranks that share each matrix of the experts: expert tensor parallelism. Where there "
            "are more ranks than experts, or an expert is too large for one; each computes its part of all "
            "their rows. The ranks that share a layer's experts are then so far apart",
            at_least(1), at_most(1 << 10));
    v.field(
        "zero", zero,
        "ZeRO stage: 0: every rank keeps the optimizer state of all parameters that it has; 1: ranks with "
        "the same parameters share it; 2: and the gradients, of which each keeps what it updates: they are "
        "summed after every micro-batch (reproducible strict keeps them whole)",
        at_least(0), at_most(2));
    v.field(
        "overlap", overlap,
        "gradients are summed over ranks while backward goes on, from the last micro-batch's first ones on, "
        "and updated parameters (zero) come in while the next forward does; false: after them. Where ranks "
        "share memory a communication thread does it, with the same bits");
    v.field(
        "bucket", bucket,
        "gradients that ranks sum at once, those of several parameters; zero 2 takes memory for a few such",
        unit::bytes, at_least(1), at_most(1e12));
  }
};

}  // namespace ziggurat
