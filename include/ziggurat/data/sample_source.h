// Where the trainer gets its sequences from: shards on disk, a blend of several sources of shards, or a
// synthetic language for trying things without any.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ziggurat/data/data_config.h>

namespace ziggurat {

// Thread-safe. The whole state of a reader is one number, the samples consumed so far: which sample comes
// i-th is a function of i only, so ranks take slices of the global order and a restart on another number of
// ranks sees the same one.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual int64_t samples_per_epoch() const = 0;  // that many samples repeat nothing
  // The samples at positions [first, first + count) of the global order:
  //   tokens  [count, S] what the model reads
  //   targets [count, S] the token after each; -1: not counted
  virtual void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const = 0;
  // Of the same samples: how many of a sample's first tokens are a prefix whose tokens may see each other.
  virtual void load_prefixes(int64_t first, int64_t count, int32_t* lengths) const;
  // How many of their targets count, where that is known without loading them; else -1.
  virtual int64_t known_targets(int64_t, int64_t) const { return -1; }
  virtual int32_t eod_id() const = 0;  // the token that ends every document; -1: there is none
  // A hint that these samples are loaded next: starts reading them from the disk, does not wait.
  virtual void prefetch(int64_t first, int64_t count) const = 0;
  // What must be the same for a checkpoint's cursor to mean the same samples, as lines "what: value".
  virtual std::string fingerprint() const = 0;
  virtual std::string tokenizer_sha256() const = 0;  // Tokenizer::fingerprint(); empty: there is none
};

// The first line in which two fingerprints differ, as "what: before -> now"; nullopt if they are equal.
std::optional<std::string> first_difference(const std::string& before, const std::string& now);

enum class Split { train, valid, test };
const char* to_string(Split split);

// The split's source; null if the config names none. `samples`: how many a run will take; decides the
// number of epochs of the Megatron order, otherwise only reported. Errors are Error(data) naming the file
// and the cure.
std::unique_ptr<SampleSource> open_samples(const DataConfig& config, Split split, int64_t sequence_length,
                                           int64_t vocab_size, int64_t samples);

// The errors of open_samples, without laying out an order or computing checksums. Returns the hash of the
// tokenizer that made the shards; empty: there are none.
std::string check_samples(const DataConfig& config, Split split, int64_t sequence_length, int64_t vocab_size);

// Error(data) naming key, paths and both fingerprints unless data.tokenizer can be read, has no more tokens
// than the model, and made the shards of every split and source. Nothing is asked without data.tokenizer, or
// without shards.
void check_tokenizer(const DataConfig& config, int64_t model_vocab_size);

bool has_data(const DataConfig& config, Split split);
bool is_synthetic(const DataConfig& config, Split split);

// The config without the paths that this machine does not have, and those paths, as "data.train: PATH".
struct PresentData {
  DataConfig config;
  std::vector<std::string> missing;
};
PresentData present_data(const DataConfig& config);

// A language of one rule: with probability 3/4 the next token is a fixed function of the last one, otherwise
// any token. A model that has learnt the rule reaches synthetic_entropy() nats a token.
class SyntheticSamples final : public SampleSource {
 public:
  SyntheticSamples(Split split, uint64_t seed, int64_t sequence_length, int64_t vocab_size);
  int64_t samples_per_epoch() const override;
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override;
  int32_t eod_id() const override { return -1; }
  void prefetch(int64_t, int64_t) const override {}
  std::string fingerprint() const override;
  std::string tokenizer_sha256() const override { return ""; }

 private:
  Split split_;
  uint64_t seed_;
  int64_t sequence_length_, vocab_size_;
};
double synthetic_entropy(int64_t vocab_size);

}  // namespace ziggurat
