// Where the trainer gets its sequences from: shards on disk, or a synthetic language for trying things
// without any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <ziggurat/data/data_config.h>

namespace ziggurat {

class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual int64_t samples_per_epoch() const = 0;
  // The samples at positions [first, first + count) of the global order, a function of the position only:
  //   tokens [count, S] what the model reads; targets [count, S] the token after each. Thread-safe.
  virtual void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const = 0;
  // What must be the same for a checkpoint's cursor to mean the same samples.
  virtual std::string fingerprint() const = 0;
};

enum class Split { train, valid, test };

// The split's source; null if the config names none. Errors are Error(data) naming the file and the cure.
std::unique_ptr<SampleSource> open_samples(const DataConfig& config, Split split, int64_t sequence_length,
                                           int64_t vocab_size);

// A language of one rule: with probability 3/4 the next token is a fixed function of the last one, otherwise
// any token. A model that has learnt the rule reaches synthetic_entropy() nats a token.
class SyntheticSamples final : public SampleSource {
 public:
  SyntheticSamples(Split split, uint64_t seed, int64_t sequence_length, int64_t vocab_size);
  int64_t samples_per_epoch() const override;
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override;
  std::string fingerprint() const override;

 private:
  Split split_;
  uint64_t seed_;
  int64_t sequence_length_, vocab_size_;
};
double synthetic_entropy(int64_t vocab_size);

}  // namespace ziggurat
