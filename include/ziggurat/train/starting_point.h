// Weights from elsewhere as the beginning of a run.
#pragma once

#include <functional>
#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

struct StartingPoint {
  const RunConfig& config;
  const nn::ParamStore& model;  // the whole model's parameters; it needs no memory
  // Fills `to` [n] with the parameter's values from element `first` on, row by row.
  std::function<void(const nn::ParamEntry& entry, int64_t first, const Tensor& to)> values;
  std::string tokenizer_fingerprint = {};  // of the tokenizer that the weights know; may be empty
  int64_t file_bytes = 5'000'000'000;      // of a file at most, but for a row of a tensor
};

// Bytes of the weights that save_starting_point writes.
int64_t bytes_of(const StartingPoint& start);

// Collective. Saves the weights as a checkpoint of step 0 into `folder`: no data has been seen and the
// optimizer's moments are zero, which takes no room, so a run of `config` with any data and seed goes on from
// it. Ranks share the files, of which there are as many for any number of ranks; each holds a buffer of fixed
// size. `progress(done, total)` hears of bytes, as if every rank were as far as this one.
void save_starting_point(const StartingPoint& start, const std::string& folder, Communicator& comm,
                         const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace ziggurat::train
