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

  // The samples at positions [first, first + sequences) of the source's order, at most batch.micro_batch;
  // stays as it is until the next call.
  model::TokenBatch read(const SampleSource& source, int64_t first, int64_t sequences);

  // How many of their targets count.
  int64_t count_targets(const SampleSource& source, int64_t first, int64_t sequences);

 private:
  int64_t length_;
  std::vector<int32_t> tokens_, targets_;
  std::vector<int32_t> positions_, first_keys_;  // empty unless the config resets them
  std::vector<int32_t> last_keys_, prefixes_;    // empty unless prefixes are seen whole
};

}  // namespace ziggurat::train
