// Do ranks that hold the same weights hold the same bits?
#pragma once

#include <string>

#include <ziggurat/optim/optimizer_state.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::train {

// Collective. The first parameter, in the order of registration, of which ranks hold other values, or other
// masters where each has them, as "NAME, weight: rank 2 differs from ranks 0, 1 and 3"; empty: all agree.
// Work that writes them must be done. Sends 8 bytes a group where they do.
std::string first_disagreement(const OptimizerState& state, const ProcessGroups& groups);

// Those of `ranks` that are in the minority, from what they say: the ranks, and the others. Where no answer
// is more frequent than any other, all are in the first.
struct Minority {
  std::vector<int> odd, others;
};
Minority minority(const std::vector<std::pair<int, std::string>>& answers);

}  // namespace ziggurat::train
