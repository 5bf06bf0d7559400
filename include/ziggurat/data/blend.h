// Several sources mixed by weight. Which source the i-th sample comes from is a function of i, so a blend has
// no state beyond the number of samples consumed, like a single source.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ziggurat/data/sample_source.h>

namespace ziggurat {

enum class BlendRule {
  // Sample i comes from the source in whose share of [0, 1) the radical inverse of i lies (van der Corput's
  // sequence: the bits of i mirrored at the binary point). Nothing is stored; every run of 2^k samples from a
  // multiple of 2^k on holds each source's share to within 2, so batches are mixed evenly.
  even,
  // Megatron's: sample i comes from the source whose count lags most behind its weight times max(i, 1), the
  // first of equals. 2 bytes per sample, laid out at the start.
  greedy,
};

class BlendOrder {
 public:
  // Weights are positive and divided by their sum. `samples`: how many the greedy rule lays out.
  BlendOrder(std::vector<double> weights, BlendRule rule, int64_t samples = 0);

  struct Pick {
    size_t source;
    int64_t sample;  // how many samples of that source came before
  };
  Pick at(int64_t i) const;  // i in [0, samples())
  int64_t samples() const;   // the greedy rule's layout ends; the even rule does not
  // Samples of a source among the first n.
  int64_t taken(size_t source, int64_t n) const;

  const std::vector<double>& weights() const { return weights_; }  // sum 1

 private:
  static constexpr int64_t kBlock = 4096;
  void share_out();               // even
  void lay_out(int64_t samples);  // greedy

  std::vector<double> weights_;
  BlendRule rule_;
  std::vector<uint64_t> bounds_;   // even: [sources + 1] of the shares, in units of 2^-32
  std::vector<uint16_t> choices_;  // greedy: [samples]
  std::vector<int64_t> counts_;    // greedy: [blocks, sources] samples of each source before the block
};

class BlendedSamples final : public SampleSource {
 public:
  struct Source {
    std::string name;
    double weight;
    std::unique_ptr<SampleSource> samples;
  };
  // All sources have the same sequence length, tokenizer and end-of-document token.
  BlendedSamples(std::vector<Source> sources, int64_t sequence_length, BlendRule rule, int64_t samples);

  int64_t samples_per_epoch() const override;  // until the first source would begin again
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override;
  int32_t eod_id() const override { return sources_.front().samples->eod_id(); }
  void prefetch(int64_t first, int64_t count) const override;
  std::string fingerprint() const override;
  std::string tokenizer_sha256() const override { return sources_.front().samples->tokenizer_sha256(); }

  // How often a source is seen by a run of n samples.
  double epochs(size_t source, int64_t n) const;
  // A line per source: weight, samples and epochs of a run of n samples.
  std::vector<std::string> report(int64_t n) const;

 private:
  std::vector<Source> sources_;
  int64_t sequence_length_;
  BlendRule rule_;
  BlendOrder order_;
};

}  // namespace ziggurat
