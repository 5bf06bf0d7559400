// Samples corrupted by UL2: what was taken out and what is left make up the text again, and how much and how
// often is what the mixture says.
#include <map>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/config/config.h>
#include <ziggurat/data/ul2.h>

namespace ziggurat {
namespace {

constexpr int64_t kVocabulary = 1000, kSentinels = 300;
constexpr int32_t kEod = 5;

// Ids 100, 101, ... so that every token tells its place in the text.
std::vector<int32_t> counting(int64_t n) {
  std::vector<int32_t> raw(static_cast<size_t>(n));
  std::iota(raw.begin(), raw.end(), 100);
  return raw;
}

struct Made {
  std::vector<int32_t> tokens, targets;
  int64_t inputs = 0;
};

Made make(const Denoiser& denoiser, int64_t length, uint64_t sample, int32_t eod = kEod) {
  Made m{std::vector<int32_t>(static_cast<size_t>(length)),
         std::vector<int32_t>(static_cast<size_t>(length))};
  m.inputs = denoise(denoiser, Philox(1, Purpose::denoising, sample), counting(length + 1),
                     {kVocabulary, kSentinels}, eod, m.tokens.data(), m.targets.data());
  return m;
}

bool is_sentinel(int32_t id) { return id >= kVocabulary - kSentinels; }

// The sequence that the sample is of: its tokens, and the target of the last one.
std::vector<int32_t> sequence_of(const Made& m) {
  std::vector<int32_t> all = m.tokens;
  all.push_back(std::max(m.targets.back(), 0));
  return all;
}

class SpanCorruption : public testing::TestWithParam<Denoiser> {};

TEST_P(SpanCorruption, TextAndAnswersMakeUpWhatWasRead) {
  const Denoiser d = GetParam();
  for (const int64_t length : {16, 100, 512}) {
    for (uint64_t sample = 0; sample < 20; ++sample) {
      const Made m = make(d, length, sample);
      const std::vector<int32_t> all = sequence_of(m);
      // The answers by their sentinels.
      std::map<int32_t, std::vector<int32_t>> answers;
      size_t at = static_cast<size_t>(m.inputs);
      int32_t open = -1;
      int64_t taken = 0;
      for (; at < all.size() && all[at] != kEod; ++at) {
        if (is_sentinel(all[at])) {
          open = all[at];
          ASSERT_TRUE(answers.emplace(open, std::vector<int32_t>()).second) << "a sentinel twice";
          continue;
        }
        answers.at(open).push_back(all[at]);
        ++taken;
      }
      ASSERT_LT(at, all.size()) << "no end";
      // The text with every span put back is the beginning of what was read.
      std::vector<int32_t> text;
      int32_t next_sentinel = static_cast<int32_t>(kVocabulary) - 1;
      for (int64_t i = 0; i < m.inputs; ++i) {
        const int32_t id = all[static_cast<size_t>(i)];
        if (!is_sentinel(id)) {
          text.push_back(id);
          continue;
        }
        ASSERT_EQ(id, next_sentinel--);
        ASSERT_FALSE(answers.at(id).empty());
        text.insert(text.end(), answers.at(id).begin(), answers.at(id).end());
      }
      ASSERT_EQ(text, counting(static_cast<int64_t>(text.size())));
      ASSERT_FALSE(is_sentinel(all[0])) << "a text begins with what is kept";
      // How much, and that more would not have fit: T5's own numbers of one token more.
      const auto n = static_cast<int64_t>(text.size());
      const auto numbers = [&](int64_t raw) {
        const auto noise = std::clamp<int64_t>(std::lround(static_cast<double>(raw) * d.rate), 1, raw - 1);
        const auto spans = std::lround(static_cast<double>(noise) / static_cast<double>(d.span));
        return std::pair<int64_t, int64_t>(noise, std::max<int64_t>(1, spans));
      };
      EXPECT_NEAR(static_cast<double>(taken), static_cast<double>(numbers(n).first),
                  1);  // halves round to even
      EXPECT_NEAR(static_cast<double>(answers.size()), static_cast<double>(numbers(n).second), 1);
      EXPECT_LE(n + 2 * static_cast<int64_t>(answers.size()) + 1, length + 1);
      EXPECT_GE(n + 2 * static_cast<int64_t>(answers.size()) + 1, length - 1);
      // What counts: the answers and their end, each told from what is before it.
      for (int64_t i = 0; i < length; ++i) {
        const bool counts = i + 1 >= m.inputs && i + 1 <= static_cast<int64_t>(at);
        ASSERT_EQ(m.targets[static_cast<size_t>(i)], counts ? all[static_cast<size_t>(i + 1)] : -1) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Denoisers, SpanCorruption,
                         testing::Values(Denoiser{1, 3, 0.15}, Denoiser{1, 8, 0.15}, Denoiser{1, 3, 0.5},
                                         Denoiser{1, 8, 0.5}, Denoiser{1, 64, 0.5}));

// What is known of a sample without its text is what it has with one, with an end and without.
TEST(Ul2, TargetsAreCountedWithoutTheText) {
  class Counting final : public SampleSource {
   public:
    Counting(int64_t length, int32_t eod) : length_(length), eod_(eod) {}
    int64_t samples_per_epoch() const override { return 1 << 20; }
    void load(int64_t, int64_t count, int32_t* tokens, int32_t* targets) const override {
      for (int64_t i = 0; i < count * length_; ++i) {
        tokens[i] = static_cast<int32_t>(100 + i % length_), targets[i] = tokens[i] + 1;
      }
    }
    int32_t eod_id() const override { return eod_; }
    void prefetch(int64_t, int64_t) const override {}
    std::string fingerprint() const override { return ""; }
    std::string tokenizer_sha256() const override { return ""; }

   private:
    int64_t length_;
    int32_t eod_;
  };
  for (const int64_t length : {16, 33, 512}) {
    for (const int32_t eod : {kEod, -1}) {
      Ul2Config config;
      config.until = 300 * length;
      const Ul2Samples samples(std::make_unique<Counting>(length, eod), config, 3, length, kVocabulary);
      std::vector<int32_t> tokens(static_cast<size_t>(length)), targets(tokens.size());
      for (int64_t i = 0; i < 302; ++i) {
        samples.load(i, 1, tokens.data(), targets.data());
        const auto count = length - std::count(targets.begin(), targets.end(), -1);
        int32_t prefix = 0;
        samples.load_prefixes(i, 1, &prefix);
        ASSERT_EQ(samples.known_targets(i, 1), count) << "sample " << i << " of " << length;
        if (i >= 300) continue;
        const auto first = std::find_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; });
        ASSERT_EQ(prefix, first - targets.begin() + 1);
      }
    }
  }
}

TEST(Ul2, APrefixIsReadAndTheRestIsTold) {
  const Made m = make({1, 0, 0.5}, 9, 0);
  EXPECT_EQ(m.inputs, 5);
  EXPECT_THAT(m.tokens, testing::ElementsAre(100, 101, 102, 103, 104, 105, 106, 107, 108));
  EXPECT_THAT(m.targets, testing::ElementsAre(-1, -1, -1, -1, 105, 106, 107, 108, 109));
}

TEST(Ul2, ATextWithoutEndsOfDocumentsHasNone) {
  const Made m = make({1, 3, 0.5}, 64, 1, -1);
  EXPECT_EQ(std::count(m.tokens.begin(), m.tokens.end(), kEod), 0);
  EXPECT_NE(m.targets[static_cast<size_t>(m.inputs)], -1);
}

// Every division of the kept and of the taken tokens into spans is as likely.
TEST(Ul2, SpansAreDrawnEvenly) {
  std::map<std::vector<int32_t>, int> seen;
  for (uint64_t sample = 0; sample < 6000; ++sample) {
    // 7 raw tokens, 4 of them in 2 spans: 2 divisions of the 3 that are kept, 3 of the 4 that are taken.
    const Made m = make({1, 2, 0.5}, 11, sample);
    ++seen[{m.tokens.begin(), m.tokens.begin() + m.inputs}];
  }
  EXPECT_EQ(seen.size(), 6U);
  for (const auto& [text, n] : seen) EXPECT_NEAR(n, 1000, 150);  // five standard deviations
}

Ul2Config config(int64_t until) {
  Ul2Config c;
  c.until = until;
  return c;
}

std::unique_ptr<SampleSource> synthetic(int64_t length) {
  return std::make_unique<SyntheticSamples>(Split::train, 1, length, kVocabulary - kSentinels);
}

TEST(Ul2, SamplesAreAFunctionOfTheirPlace) {
  constexpr int64_t kLength = 128;
  const Ul2Samples samples(synthetic(kLength), config(100 * kLength), 7, kLength, kVocabulary);
  std::vector<int32_t> tokens(20 * kLength), targets(tokens.size()), prefixes(20);
  samples.load(90, 20, tokens.data(), targets.data());
  samples.load_prefixes(90, 20, prefixes.data());
  EXPECT_EQ(samples.known_targets(90, 20),
            std::ssize(targets) - std::count(targets.begin(), targets.end(), -1));
  std::vector<int32_t> plain(tokens.size()), plain_targets(tokens.size());
  synthetic(kLength)->load(90, 20, plain.data(), plain_targets.data());
  for (int64_t i = 0; i < 20; ++i) {
    std::vector<int32_t> one(kLength), one_targets(kLength);
    int32_t prefix = 0;
    samples.load(90 + i, 1, one.data(), one_targets.data());
    samples.load_prefixes(90 + i, 1, &prefix);
    const auto row = [&](const std::vector<int32_t>& all) {
      return std::vector<int32_t>(all.begin() + i * kLength, all.begin() + (i + 1) * kLength);
    };
    EXPECT_EQ(row(tokens), one);
    EXPECT_EQ(row(targets), one_targets);
    EXPECT_EQ(prefixes[static_cast<size_t>(i)], prefix);
    if (i < 10) {
      EXPECT_NE(row(targets), row(plain_targets));
      EXPECT_GT(prefix, 0);
    } else {  // from sample 100 on next tokens
      EXPECT_EQ(row(tokens), row(plain));
      EXPECT_EQ(row(targets), row(plain_targets));
      EXPECT_EQ(prefix, 0);
    }
  }
  const Ul2Samples other(synthetic(kLength), config(100 * kLength), 8, kLength, kVocabulary);
  std::vector<int32_t> again(tokens.size()), again_targets(tokens.size());
  other.load(90, 20, again.data(), again_targets.data());
  EXPECT_NE(again_targets, targets);
  EXPECT_NE(other.fingerprint(), synthetic(kLength)->fingerprint());
}

TEST(Ul2, HalfOfTheSamplesArePrefixes) {
  constexpr int64_t kLength = 512, kSamples = 4000;
  const Ul2Samples samples(synthetic(kLength), config(kSamples * kLength), 7, kLength, kVocabulary);
  std::vector<int32_t> tokens(kLength), targets(kLength);
  std::map<int64_t, int> by_spans;  // which differ between denoisers of so many tokens
  for (int64_t i = 0; i < kSamples; ++i) {
    samples.load(i, 1, tokens.data(), targets.data());
    const auto count = kLength - std::count(targets.begin(), targets.end(), -1);
    ASSERT_EQ(samples.known_targets(i, 1), count) << i;
    const auto told = std::count_if(targets.begin(), targets.end(), is_sentinel);
    EXPECT_EQ(std::count_if(tokens.begin(), tokens.end(), is_sentinel), 2 * told) << i;
    ++by_spans[told];
  }
  ASSERT_EQ(by_spans.size(), 6U);
  EXPECT_NEAR(by_spans[0], 2000, 160);  // five standard deviations
  by_spans.erase(0);
  for (const auto& [spans, n] : by_spans) EXPECT_NEAR(n, 400, 95) << spans;
}

TEST(Ul2, MostSpansAreThoseOfTheShortestAtTheHighestRate) {
  EXPECT_EQ(most_spans(config(1), 2048), corruption_of({1, 3, 0.5}, 1537).spans);
  EXPECT_LE(most_spans(config(1), 2048), 300);  // the sentinels of umT5
}

}  // namespace
}  // namespace ziggurat
