// The tensors of a folder, from a checkpoint.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "hf/layout.h"
#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat::hf {

// Tensors [begin, end) of a layout, in one file.
struct Shard {
  size_t begin = 0, end = 0;
  int64_t bytes = 0;
};

// As few files as can be, in order, none over `most_bytes` unless it holds a single tensor.
std::vector<Shard> plan_shards(std::span<const FolderTensor> tensors, DType dtype, int64_t most_bytes);
std::string shard_name(size_t shard, size_t shards);  // "model-00001-of-00003.safetensors"

// Throws Error(checkpoint) naming the first tensor that is missing or of another shape than the model's.
void check_tensors(const CheckpointReader& checkpoint, const model::ModelConfig& config,
                   std::span<const FolderTensor> tensors);

// Collective. Writes the shards into `folder`, each on one rank; returns the hash of every tensor's data.
std::vector<std::string> write_shards(CheckpointReader& checkpoint, const model::ModelConfig& config,
                                      std::span<const FolderTensor> tensors, std::span<const Shard> shards,
                                      DType dtype, const std::string& folder, Communicator& comm,
                                      const std::function<void(int64_t done, int64_t total)>& progress);

// model.safetensors.index.json
std::string index_json(std::span<const FolderTensor> tensors, std::span<const Shard> shards);

// Of names, shapes, dtype and data.
std::string weight_hash(std::span<const FolderTensor> tensors, DType dtype,
                        std::span<const std::string> data_hashes);

}  // namespace ziggurat::hf
