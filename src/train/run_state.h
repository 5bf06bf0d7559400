// How far a run is, as its checkpoints say it.
#pragma once

#include <nlohmann/json.hpp>

#include <ziggurat/train/training.h>

namespace ziggurat::train {

nlohmann::json state_of(const Training& training);
void restore_state(const nlohmann::json& state, Training& training);

}  // namespace ziggurat::train
