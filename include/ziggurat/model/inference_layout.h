// How ranks share a model that is asked, not trained (arXiv 2201.05596, section 5).
#pragma once

#include <ziggurat/config/fields.h>
#include <ziggurat/model/model_config.h>
#include <ziggurat/plan/parallel_config.h>
#include <ziggurat/plan/parallel_plan.h>

namespace ziggurat::model {

// Ranks come in teams of `tensor`, each of which has texts of its own. Experts are spread over the ranks of
// all teams, each whole on `expert_slice` of them together.
struct InferenceLayout {
  int tensor = 1;
  int expert = 0;
  int expert_slice = 0;
  int ranks_per_node = 0;
  AllToAll all_to_all = AllToAll::automatic;

  template <class V>
  void visit_fields(V& v) {
    v.field("tensor", tensor,
            "ranks that share the matrices of attention, MLPs and vocabulary, and work on the same texts; "
            "others have texts of their own",
            at_least(1), at_most(1 << 10));
    v.field(
        "expert", expert,
        "ranks, or groups of expert_slice ranks, that share the experts of a layer, at most; 0: as many as "
        "its experts allow",
        at_least(0), at_most(1 << 20));
    v.field("expert_slice", expert_slice,
            "ranks that share the matrices of each expert; 0: one, or as many as `tensor` needs where there "
            "are more ranks than experts",
            at_least(0), at_most(1 << 10));
    v.field(
        "ranks_per_node", ranks_per_node,
        "ranks that exchange faster than others, consecutive ones; 0: those that share a machine's memory",
        at_least(0));
    v.field("all_to_all", all_to_all, "between ranks on several nodes, as parallel.all_to_all of a run");
  }
};

// A model as it lies on ranks: each layer's expert_parallel is what it has here.
struct PlacedModel {
  ModelConfig config;
  ParallelPlan plan;
};

// Throws Error(argument) where something cannot be cut, with what to choose instead.
PlacedModel place(const ModelConfig& config, const InferenceLayout& layout, int ranks);

}  // namespace ziggurat::model
