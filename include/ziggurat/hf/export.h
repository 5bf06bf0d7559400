// A checkpoint as a folder that Hugging Face transformers loads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/hf/form.h>

namespace ziggurat::hf {

struct ExportOptions {
  DType dtype = DType::f32;             // f32 or bf16, of every tensor
  int64_t shard_bytes = 5'000'000'000;  // of tensors in a file; one tensor may be larger
  bool overwrite = false;               // replace an earlier export
  // Hears of bytes of weights, as if every rank were as far as this one.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// What the model card tells beside the model itself.
struct Provenance {
  std::string run;     // name
  std::string config;  // YAML of the whole run, kept as ziggurat.yaml
  std::string data;    // what it was trained on
  int64_t step = 0, tokens = 0;
  std::vector<std::pair<std::string, std::string>> losses;  // what was measured, and how much it was
  std::vector<std::string> not_expressed;                   // beside what hf::not_expressed says
};

struct Exported {
  Form form = {};
  int64_t bytes = 0, files = 0;         // of weights
  std::string weight_hash = {};         // of names, shapes, dtype and data; the same however they are sharded
  std::vector<std::string> notes = {};  // what the folder does not express
};

// Collective. Writes `output`: weights, config.json, generation_config.json, tokenizer, README.md,
// ziggurat.yaml and, where the class is our own, its code. Ranks share the files of weights; each holds one
// tensor at a time. The folder appears whole or not at all. `tokenizer` may be null.
// Throws Error(argument) if `output` stands already, and Error(checkpoint) for a checkpoint that is damaged
// or not of this model, and for what cannot be written.
Exported export_model(CheckpointReader& checkpoint, const model::ModelConfig& config,
                      const Provenance& provenance, const Tokenizer* tokenizer, const std::string& output,
                      const ExportOptions& options, Communicator& comm);

}  // namespace ziggurat::hf
