// Blends: the rule alone, then over shards whose tokens tell which source they came from.
#include <cmath>
#include <numeric>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/data/blend.h>
#include <ziggurat/data/dataset.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

const std::vector<double> kSkewed = {0.14336, 0.00208, 0.5, 0.35456};

TEST(BlendOrder, CountsEverySampleOfEverySourceOnceAndInTurn) {
  for (const auto& weights : {kSkewed, {1.0}, {1, 1, 1}, {3, 1}, {1e-6, 1, 1e-6}}) {
    const BlendOrder order(weights, BlendRule::even);
    std::vector<int64_t> drawn(weights.size(), 0);
    for (int64_t i = 0; i < 20000; ++i) {
      const BlendOrder::Pick pick = order.at(i);
      ASSERT_EQ(pick.sample, drawn[pick.source]) << "sample " << i;
      ++drawn[pick.source];
    }
    for (size_t s = 0; s < weights.size(); ++s) EXPECT_EQ(order.taken(s, 20000), drawn[s]);
  }
}

TEST(BlendOrder, KeepsTheWeightsAtEveryLength) {
  const BlendOrder order(kSkewed, BlendRule::even);
  for (const int64_t n : {1, 10, 1000, 146'500'000}) {
    int64_t sum = 0;
    for (size_t s = 0; s < kSkewed.size(); ++s) {
      const int64_t taken = order.taken(s, n);
      sum += taken;
      // The discrepancy of van der Corput's sequence: each end of a share is off by at most
      // log2(n) / 3 + 1 (Bejian & Faure 1977); bounds are rounded to 2^-32.
      const double allowed = 2 * (std::log2(static_cast<double>(n)) / 3 + 1) + n * 0x1p-31;
      EXPECT_NEAR(static_cast<double>(taken), kSkewed[s] * static_cast<double>(n), allowed) << s << " " << n;
    }
    EXPECT_EQ(sum, n);
  }
}

TEST(BlendOrder, MixesEveryBatch) {
  const BlendOrder order(kSkewed, BlendRule::even);
  for (int64_t batch = 0; batch < 50; ++batch) {
    for (size_t s = 0; s < kSkewed.size(); ++s) {
      const int64_t taken = order.taken(s, (batch + 1) * 256) - order.taken(s, batch * 256);
      EXPECT_NEAR(static_cast<double>(taken), 256 * kSkewed[s], 2) << s;
    }
  }
}

TEST(BlendOrder, RefusesWeightsThatMeanNothing) {
  for (const auto& weights : {std::vector<double>{}, {1, 0}, {1, -1}, {1, NAN}, {1, INFINITY}}) {
    error_of(ErrorKind::argument, [&] { BlendOrder(weights, BlendRule::even); });
  }
  error_of(ErrorKind::config, [&] { BlendOrder({1, 1e-12}, BlendRule::even); });
}

// Shards of one source in a folder: `tokens` tokens that are all `value`, in documents of 10.
void write_source(const std::filesystem::path& folder, int32_t value, int64_t tokens,
                  const std::string& tokenizer = "abc", const std::string& split = "train") {
  std::filesystem::create_directories(folder);
  ShardInfo common;
  common.vocab_size = 100, common.eod_id = 99, common.tokenizer_sha256 = tokenizer, common.split = split;
  ShardBuilder builder(common);
  for (int64_t n = 0; n < tokens; n += 10) builder.append(std::vector<int32_t>(10, value));
  ShardManifest manifest;
  manifest.folder = folder, manifest.source = "s", manifest.split = split, manifest.vocab_size = 100;
  manifest.eod_id = 99, manifest.tokenizer_sha256 = tokenizer;
  const ShardInfo info = builder.write(folder / "s.tmp");
  const auto file = folder / shard_name("s", split, 0, 1);
  finish_shard(folder / "s.tmp", file, 1);
  manifest.shards = {describe_shard(file, info)};
  write_manifest(manifest);
}

// The shipped mixture with its paths turned to shards in `dir`, where source k has only tokens k and
// 400 + 40 k tokens: some are seen several times.
DataConfig mixture(const TempDir& dir) {
  struct Wrapper {
    DataConfig data;
    void visit_fields(FieldList& v) { v.field("data", data, "the section"); }
  } shipped;
  load_config(shipped, test::source_dir() + "/configs/data/mt_nlg_blend.yaml");
  for (size_t k = 0; k < shipped.data.blend.size(); ++k) {
    BlendSource& source = shipped.data.blend[k];
    EXPECT_FALSE(source.train.empty());
    source.train = (dir / std::to_string(k)).string();
    source.valid.clear();
    write_source(source.train, static_cast<int32_t>(k), 400 + 40 * static_cast<int64_t>(k));
  }
  return shipped.data;
}

TEST(Blend, TheShippedMixtureIsMixedByItsWeights) {
  const TempDir dir;
  for (const OrderKind kind : {OrderKind::keyed, OrderKind::megatron}) {
    DataConfig config = mixture(dir);
    config.order = kind;
    ASSERT_EQ(config.blend.size(), 15u);
    double sum = 0;
    for (const BlendSource& s : config.blend) sum += s.weight;
    EXPECT_NEAR(sum, 1, 15 * 5e-6);  // five decimals each
    constexpr int64_t kSamples = 2000, S = 9;
    const auto blend = open_samples(config, Split::train, S, 100, kSamples);
    ASSERT_NE(blend, nullptr);
    std::vector<int32_t> tokens(kSamples * S), targets(tokens.size());
    blend->load(0, kSamples, tokens.data(), targets.data());
    std::vector<int64_t> counts(15, 0);
    for (size_t i = 0; i < tokens.size(); ++i) {
      ASSERT_EQ(tokens[i], tokens[i / S * S]);  // a sample has one source
      counts[static_cast<size_t>(tokens[i])] += i % S == 0;
    }
    for (size_t k = 0; k < 15; ++k) {
      const double expected = config.blend[k].weight / sum * kSamples;
      EXPECT_NEAR(static_cast<double>(counts[k]), expected, 2 * (std::log2(kSamples) / 3 + 1)) << k;
      const auto* blended = dynamic_cast<const BlendedSamples*>(blend.get());
      ASSERT_NE(blended, nullptr);
      EXPECT_DOUBLE_EQ(blended->epochs(k, kSamples),
                       static_cast<double>(counts[k]) / ((399 + 40 * static_cast<int>(k)) / S));
    }
    // Any slice, in any order, gives the same samples.
    std::vector<int32_t> again(3 * S), ignored(again.size());
    for (const int64_t first : {int64_t{1900}, int64_t{0}, int64_t{777}}) {
      blend->load(first, 3, again.data(), ignored.data());
      EXPECT_TRUE(std::equal(again.begin(), again.end(), tokens.begin() + first * S));
    }
    blend->prefetch(kSamples - 5, 10);
  }
}

TEST(Blend, SourcesMustShareATokenizerAndTheModelsVocabulary) {
  const TempDir dir;
  write_source(dir / "a", 1, 100);
  write_source(dir / "b", 2, 100, "another");
  DataConfig config;
  config.blend = {{"first", 0.5, (dir / "a").string(), "", ""},
                  {"second", 0.5, (dir / "b").string(), "", ""}};
  const std::string message =
      error_of(ErrorKind::data, [&] { open_samples(config, Split::train, 9, 100, 10); });
  EXPECT_NE(message.find("second was made with another tokenizer"), std::string::npos) << message;
  EXPECT_NE(message.find("than first"), std::string::npos) << message;
  config.blend.pop_back();
  EXPECT_NE(open_samples(config, Split::train, 9, 100, 10), nullptr);
  error_of(ErrorKind::data, [&] { open_samples(config, Split::train, 9, 99, 10); });
  EXPECT_EQ(open_samples(config, Split::valid, 9, 100, 10), nullptr);
}

TEST(Blend, TheFingerprintNamesWeightsSourcesAndShards) {
  const TempDir dir;
  write_source(dir / "a", 1, 100);
  write_source(dir / "b", 2, 200);
  DataConfig config;
  config.blend = {{"", 0.5, (dir / "a").string(), "", ""}, {"", 0.5, (dir / "b").string(), "", ""}};
  const auto print = [&] { return open_samples(config, Split::train, 9, 100, 10)->fingerprint(); };
  const std::string before = print();
  EXPECT_EQ(first_difference(before, print()), std::nullopt);
  config.blend[0].weight = 1.5;
  EXPECT_NE(first_difference(before, print())->find("weight 0.500000000 -> weight 0.750000000"),
            std::string::npos);
  config.blend[0].weight = 0.5;
  write_source(dir / "b", 3, 200);
  const std::string changed = first_difference(before, print()).value_or("equal");
  EXPECT_NE(changed.find("source 1, shard s-train-00000-of-00001.h5: 200 tokens"), std::string::npos)
      << changed;
}

TEST(FirstDifference, NamesLinesThatChangedCameOrWent) {
  EXPECT_EQ(first_difference("a: 1\nb: 2\n", "a: 1\nb: 3\n"), "b: 2 -> 3");
  EXPECT_EQ(first_difference("a: 1\n", "a: 1\nb: 3\n"), "nothing -> b: 3");
  EXPECT_EQ(first_difference("a: 1\nb: 3\n", "a: 1\n"), "b: 3 -> nothing");
  EXPECT_EQ(first_difference("a: 1\n", "c: 1\n"), "a: 1 -> c: 1");
  EXPECT_EQ(first_difference("", ""), std::nullopt);
}

TEST(DataConfig, ABlendIsCheckedAsAWhole) {
  const auto message = [](const char* yaml) {
    DataConfig config;
    return error_of(ErrorKind::config, [&] { parse_config(config, yaml); });
  };
  EXPECT_NE(message("{train: a, blend: [{train: b, weight: 1}]}").find("train"), std::string::npos);
  EXPECT_NE(message("{blend: [{train: b, weight: 0}]}").find("weight"), std::string::npos);
  EXPECT_NE(message("{blend: [{train: b}]}").find("weight"), std::string::npos);
  EXPECT_NE(message("{blend: [{weight: 1}]}").find("blend.0"), std::string::npos);
  EXPECT_NE(message("{train: a, order: megatron, shuffle: false}").find("shuffle"), std::string::npos);
  DataConfig config;  // validation may stay a single source
  parse_config(config, "{valid: v, blend: [{train: a, weight: 0.5}, {train: b, weight: 0.5}]}");
  EXPECT_EQ(config.blend.size(), 2u);
}

}  // namespace
}  // namespace ziggurat
