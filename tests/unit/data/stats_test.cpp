#include <cmath>
#include <sstream>

#include "data_tools/bench.h"
#include "data_tools/inspect.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// One shard of a split with token t occurring t + 1 times, t < 4.
void write_staircase(const std::filesystem::path& folder, const std::string& split) {
  ShardInfo common;
  common.vocab_size = 10, common.eod_id = 9, common.tokenizer_sha256 = "abc", common.split = split;
  ShardBuilder builder(common);
  builder.append(std::vector<int32_t>{0, 1, 1, 2, 2, 2, 3, 3, 3, 3});
  ShardManifest manifest{folder, "stairs", split, "", "abc", 10, 9, {}};
  const ShardInfo info = builder.write(folder / "s.tmp");
  const auto file = folder / shard_name("stairs", split, 0, 1);
  finish_shard(folder / "s.tmp", file, 1);
  manifest.shards = {describe_shard(file, info)};
  write_manifest(manifest);
}

TEST(Stats, CountsTokensAndTheirEntropy) {
  const TempDir dir;
  write_staircase(dir.path(), "train");
  const TokenStats stats = token_stats(dir.path(), "train");
  EXPECT_EQ(stats.counts, (std::vector<int64_t>{1, 2, 3, 4, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(stats.tokens, 10);
  EXPECT_EQ(stats.distinct, 4);
  double entropy = 0;
  for (const double p : {0.1, 0.2, 0.3, 0.4}) entropy -= p * std::log(p);
  EXPECT_DOUBLE_EQ(stats.entropy, entropy);

  std::ostringstream out;
  StatsOptions options;
  options.train = dir.path(), options.top = 2;
  print_stats(options, out);  // without validation shards and without a tokenizer
  EXPECT_NE(out.str().find("      3            4  40.00%"), std::string::npos) << out.str();
  EXPECT_EQ(out.str().find("      1            2  20.00%"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("never seen          6"), std::string::npos) << out.str();
  EXPECT_EQ(out.str().find("unigram"), std::string::npos);
  write_staircase(dir.path(), "valid");
  print_stats(options, out);
  EXPECT_NE(out.str().find("measured on 10 tokens of valid"), std::string::npos) << out.str();
  error_of(ErrorKind::data, [&] { token_stats(dir.path(), "test"); });
}

TEST(Stats, ATokenizerThatDoesNotFitTheShardsIsRefused) {
  const TempDir dir;
  write_staircase(dir.path(), "train");
  std::ostringstream out;
  StatsOptions stats;
  stats.train = dir.path(), stats.tokenizer = "bytes";
  SampleOptions sample;
  sample.path = dir.path(), sample.tokenizer = "bytes";
  for (const std::string& message : {error_of(ErrorKind::data, [&] { print_stats(stats, out); }),
                                     error_of(ErrorKind::data, [&] { print_sample(sample, out); })}) {
    for (const std::string& part : {std::string("bytes"), dir.path().string(), std::string("--tokenizer")}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
  EXPECT_EQ(out.str(), "");
  load_tokenizer("bytes")->save(dir.path());  // the one beside the shards is held against them, too
  stats.tokenizer.clear();
  error_of(ErrorKind::data, [&] { print_stats(stats, out); });
}

TEST(Bench, RunsOnAnyShards) {
  const TempDir dir;
  counting_shards(dir.path(), {3000, 500});
  std::ostringstream out;
  BenchOptions options;
  options.path = dir.path(), options.sequence_length = 64, options.seconds = 0.01;
  bench_shards(options, out);
  EXPECT_NE(out.str().find("opened 2 shards"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("random windows"), std::string::npos) << out.str();
}

}  // namespace
}  // namespace ziggurat
