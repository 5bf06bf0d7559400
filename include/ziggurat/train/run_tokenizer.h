// The tokenizer of a run: kept in the run's folder, and found again for a checkpoint wherever that was moved.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/data/vocabulary.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Saves the tokenizer of the run's text, the one that the config names or that lies beside the training
// shards, as <output>/tokenizer; nothing where there is none (a synthetic language) or it stands there
// already. For one rank, when the run may write to its folder. `fingerprint`: of the tokenizer of the
// training data, if recorded. Error(config) if the folder holds another tokenizer, which the checkpoints
// there need.
void save_tokenizer(const RunConfig& config, const std::string& fingerprint);

// What a checkpoint says about its model's ids. `config` is the checkpoint's own.
Vocabulary vocabulary_of(const CheckpointReader& checkpoint, const RunConfig& config);

struct FoundTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::filesystem::path path;
};
// The tokenizer that the checkpoint's model was trained with: `named`, unless that is empty; otherwise the
// first that fits of those beside the checkpoint, then those that its config names, taken from here and from
// where the run's folder is now. Error(data) saying what was tried and why it was not taken.
FoundTokenizer find_tokenizer(const CheckpointReader& checkpoint, const RunConfig& config,
                              const std::string& named);

}  // namespace ziggurat::train
