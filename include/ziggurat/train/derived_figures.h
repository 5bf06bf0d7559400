// What follows from a config that stands in none of its lines.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// For a job of so many ranks; 0: the largest expert-parallel size. In the order in which people ask: steps,
// tokens of a step, padding, tokens and room of an expert, bytes that a rank sends. Throws Error(config) for
// ranks that cannot share the run.
std::vector<std::pair<std::string, std::string>> derived_figures(const RunConfig& config, int ranks);

}  // namespace ziggurat::train
