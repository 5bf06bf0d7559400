#include <algorithm>

#include "train/resume_checks.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/train/starting_point.h>

namespace ziggurat::train {

void save_starting_point(const RunConfig& config, nn::ParamStore& weights,
                         const std::string& tokenizer_fingerprint, const std::string& folder) {
  int64_t most_bytes = 0;
  for (const nn::ParamEntry& entry : weights.entries()) {
    most_bytes = std::max(most_bytes, weights.master(entry).bytes());
  }
  std::vector<std::byte> zeros(static_cast<size_t>(most_bytes));  // all moments are the same zeros
  std::vector<TensorSlice> slices;
  for (const nn::ParamEntry& entry : weights.entries()) {
    const Tensor master = weights.master(entry);
    const Tensor moment(zeros.data(), master.dtype(), master.shape());
    const Shape& shape = entry.spec.global_shape;
    for (const std::string& name : saved_names(entry.spec.name)) {
      slices.push_back({name, shape, 0, shape[0], name == entry.spec.name ? master : moment});
    }
  }
  CheckpointInfo info;
  info.run_id = config.name;
  info.config = dump_config(config);
  info.state = {{"step", 0}, {"consumed_samples", 0}};
  if (!tokenizer_fingerprint.empty()) info.state["tokenizer"] = tokenizer_fingerprint;
  const auto self = make_self_communicator();
  save_checkpoint(folder, info, slices, *self);
}

}  // namespace ziggurat::train
