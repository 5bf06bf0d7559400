// `ziggurat data convert`: shards from other programs' token files, and back.
//   Megatron-LM   <prefix>.idx and <prefix>.bin, one sequence per document
//   Cerebras      HDF5 files with one list of token ids, `data` (our shards are such files already)
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ziggurat {

struct ConvertOptions {
  std::vector<std::filesystem::path> inputs;  // to shards: one Megatron prefix, or HDF5 files in their order
  std::filesystem::path output;               // folder for the shards; to Megatron: prefix of the two files
  std::string source = "corpus", split = "train";
  std::filesystem::path tokenizer;  // names vocabulary and end of document; or give both here:
  int64_t vocab_size = 0, eod_id = -1;
  int64_t shard_tokens = int64_t{1} << 27;
  bool overwrite = false;  // else what lies at `output` is an error; replaced only when all is written
};

// Errors (data) name the file: missing, cut off, not of this format, a token outside the vocabulary; what
// stands in `output` is then unchanged.
void convert_to_shards(const ConvertOptions& options);

// One .bin and .idx of all shards of options.inputs[0] (as read_manifest). Reading them back gives the same
// shards, and Megatron files of u16 or i32 tokens come back byte for byte.
void convert_to_megatron(const ConvertOptions& options);

}  // namespace ziggurat
