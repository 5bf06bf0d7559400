// UL2 as OpenMoE trains with it (arXiv 2205.05131; arXiv 2402.01739, table 2): what a sample's model reads is
// a corrupted text and then what was taken out of it, and only the latter counts. A sample becomes another
// one by a function of seed and place in the order, so ranks, resumed runs and replays meet the same.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <ziggurat/core/philox.h>
#include <ziggurat/data/sample_source.h>

namespace ziggurat {

// The ids of the model's vocabulary that stand for spans: its last ones, counted down, as T5's.
struct Sentinels {
  int64_t vocab_size = 0, count = 0;
  int32_t id(int64_t span) const { return static_cast<int32_t>(vocab_size - 1 - span); }
};

// How much of `length` tokens a denoiser takes out, in how many spans (T5's random_spans_noise_mask).
struct Corruption {
  int64_t taken = 0, spans = 0;
};
Corruption corruption_of(const Denoiser& denoiser, int64_t length);
// The most spans that a sample of so many tokens has under any of the denoisers.
int64_t most_spans(const Ul2Config& config, int64_t sequence_length);

// From raw [S + 1], a piece of text: tokens and targets [S], the latter -1 where nothing counts. Returns how
// many of the tokens are the corrupted text, which a bidirectional prefix sees whole.
//   span corruption  the text with span k replaced by sentinel k, then for each k sentinel k and the span,
//   then
//                    `eod` unless it is negative. As many raw tokens are used as leave room for it all.
//   prefix           the text; its last `rate` is what counts
int64_t denoise(const Denoiser& denoiser, const Philox& random, std::span<const int32_t> raw,
                const Sentinels& sentinels, int32_t eod, int32_t* tokens, int32_t* targets);

class Ul2Samples final : public SampleSource {
 public:
  // Of `source`, whose ids leave the sentinels out. Samples from position `until` on are as they were.
  Ul2Samples(std::unique_ptr<SampleSource> source, const Ul2Config& config, uint64_t seed,
             int64_t sequence_length, int64_t vocab_size);

  int64_t samples_per_epoch() const override { return source_->samples_per_epoch(); }
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override;
  void load_prefixes(int64_t first, int64_t count, int32_t* lengths) const override;
  int64_t known_targets(int64_t first, int64_t count) const override;
  int32_t eod_id() const override { return source_->eod_id(); }
  void prefetch(int64_t first, int64_t count) const override { source_->prefetch(first, count); }
  std::string fingerprint() const override;
  std::string tokenizer_sha256() const override { return source_->tokenizer_sha256(); }

 private:
  Philox random_of(int64_t position) const;
  const Denoiser& denoiser_of(const Philox& random) const;
  void denoise_sample(int64_t position, int32_t* tokens, int32_t* targets) const;

  std::unique_ptr<SampleSource> source_;
  std::vector<Denoiser> denoisers_;
  uint64_t seed_;
  int64_t sequence_length_, until_;
  Sentinels sentinels_;
};

}  // namespace ziggurat
