// What is wrong and what is odd about a run's config, told before anything is computed: `config check`,
// `plan` and `train` ask the same questions.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Throws Error(config) with every mistake that the config alone shows. Loading one asks the same
// (RunConfig::validate), except that there are data to train on: generating text needs none.
void check_trainable(const RunConfig& config);

// An option that does nothing, or other than it seems to say.
struct Warning {
  std::string key, value, why, cure;
};
std::string to_string(const Warning& warning);

// Of a config without mistakes. A value that stands at its default is not blamed for doing nothing.
std::vector<Warning> warnings_of(const RunConfig& config);

// Holds the tokenizer, the shards and the teacher that the config names, as far as this machine has them,
// against each other and against the config: Error(data) or Error(config) naming the key. Returns what is not
// here, as "data.train: PATH".
std::vector<std::string> check_present_data(const RunConfig& config);

}  // namespace ziggurat::train
