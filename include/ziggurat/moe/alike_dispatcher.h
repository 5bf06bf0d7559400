// Token dispatch where ranks that share matrices have the same tokens (inference): experts exchange among
// ranks of equal places only (arXiv 2201.05596, section 5.2).
#pragma once

#include <memory>

#include <ziggurat/moe/token_dispatcher.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::moe {

// For a layer whose experts `expert_parallel` ranks share; see ParallelPlan for who exchanges with whom.
//   as many ranks share an expert as any other matrix: each place does the whole exchange, and all is done
//   more share other matrices: each place brings the rows of the experts that it reaches, and hands them on
//   more share an expert:      places bring rows of other texts, and compute them together
// The groups must outlive the dispatcher.
std::unique_ptr<TokenDispatcher> make_alike_dispatcher(const ProcessGroups& groups, int64_t experts,
                                                       int expert_parallel);

}  // namespace ziggurat::moe
