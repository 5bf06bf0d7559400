#include <cmath>

#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/sample_source.h>

namespace ziggurat {

namespace {

constexpr char kSynthetic[] = "synthetic";
constexpr const char* kSplitNames[] = {"train", "valid", "test"};

class ShardSamples final : public SampleSource {
 public:
  ShardSamples(const std::string& path, Split split, const DatasetOptions& options)
      : dataset_(path, kSplitNames[static_cast<int>(split)], options) {}
  int64_t samples_per_epoch() const override { return dataset_.samples_per_epoch(); }
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override {
    dataset_.load(first, count, tokens, targets);
  }
  std::string fingerprint() const override { return dataset_.fingerprint(); }

 private:
  Dataset dataset_;
};

}  // namespace

std::unique_ptr<SampleSource> open_samples(const DataConfig& config, Split split, int64_t sequence_length,
                                           int64_t vocab_size) {
  const std::string& path = split == Split::train   ? config.train
                            : split == Split::valid ? config.valid
                                                    : config.test;
  if (path.empty()) return nullptr;
  if (path == kSynthetic)
    return std::make_unique<SyntheticSamples>(split, static_cast<uint64_t>(config.seed), sequence_length,
                                              vocab_size);
  DatasetOptions options;
  options.sequence_length = sequence_length;
  options.vocab_size = vocab_size;
  options.seed = static_cast<uint64_t>(config.seed);
  options.shuffle = config.shuffle && split == Split::train;
  options.verify_below = config.verify_below;
  return std::make_unique<ShardSamples>(path, split, options);
}

SyntheticSamples::SyntheticSamples(Split split, uint64_t seed, int64_t sequence_length, int64_t vocab_size)
    : split_(split), seed_(seed), sequence_length_(sequence_length), vocab_size_(vocab_size) {}

// Never repeats within a training run; a validation reads the first samples of another split.
int64_t SyntheticSamples::samples_per_epoch() const { return int64_t{1} << 40; }

void SyntheticSamples::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  const auto vocab = static_cast<uint64_t>(vocab_size_);
  for (int64_t i = 0; i < count; ++i) {
    const Philox rng(seed_, Purpose::sample_order, static_cast<uint64_t>(split_),
                     static_cast<uint64_t>(first + i));
    uint64_t token = rng.block(0)[0] % vocab;
    for (int64_t t = 0; t < sequence_length_; ++t) {
      tokens[i * sequence_length_ + t] = static_cast<int32_t>(token);
      const Philox::Block noise = rng.block(static_cast<uint64_t>(t) + 1);
      token = noise[0] % 4 != 0 ? (5 * token + 3) % vocab : noise[1] % vocab;
      targets[i * sequence_length_ + t] = static_cast<int32_t>(token);
    }
  }
}

std::string SyntheticSamples::fingerprint() const {
  return fmt::format("{}-{}-{}-{}-{}", kSynthetic, kSplitNames[static_cast<int>(split_)], seed_,
                     sequence_length_, vocab_size_);
}

double synthetic_entropy(int64_t vocab_size) {
  const auto v = static_cast<double>(vocab_size);
  const double rule = 0.75 + 0.25 / v, other = 0.25 / v;
  return -rule * std::log(rule) - (v - 1) * other * std::log(other);
}

}  // namespace ziggurat
