// What every rank of a job must have been started with.
#pragma once

#include <vector>

#include <ziggurat/comm/agreement.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Every key of the resolved config, the output folder's absolute path, and version and contents of the
// program.
std::vector<NamedValue> start_values(const RunConfig& config);

}  // namespace ziggurat::train
