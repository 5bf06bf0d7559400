// One micro-batch after the other, as the model takes them, in memory allocated once.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/data/sample_source.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

class BatchReader {
 public:
  explicit BatchReader(const RunConfig& config);

  // The micro-batch that begins at position `first` of the source's order; stays as it is until the next
  // call.
  model::TokenBatch read(const SampleSource& source, int64_t first);

 private:
  int64_t sequences_, length_;
  std::vector<int32_t> tokens_, targets_;
  std::vector<int32_t> positions_, first_keys_;  // empty unless the config resets them
};

}  // namespace ziggurat::train
