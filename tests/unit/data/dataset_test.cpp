// Tokens are 0, 1, 2, ... over all shards, so sample j of length S begins with token j * S.
#include <algorithm>
#include <set>

#include <hdf5.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/dataset.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

struct OrderCase {
  int64_t n;
  uint64_t seed;
};
class OrderBijection : public ::testing::TestWithParam<OrderCase> {};

TEST_P(OrderBijection, EveryEpochVisitsEverySampleOnce) {
  const auto [n, seed] = GetParam();
  const SampleOrder order(n, seed);
  for (const int64_t epoch : {0, 1, 1000000}) {
    std::vector<bool> seen(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t sample = order.at(epoch * n + i);
      ASSERT_GE(sample, 0);
      ASSERT_LT(sample, n);
      ASSERT_FALSE(seen[static_cast<size_t>(sample)]) << "sample " << sample << " twice";
      seen[static_cast<size_t>(sample)] = true;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Data, OrderBijection,
                         ::testing::Values(OrderCase{1, 0}, OrderCase{2, 1}, OrderCase{3, 2}, OrderCase{4, 3},
                                           OrderCase{5, 4}, OrderCase{63, 5}, OrderCase{64, 6},
                                           OrderCase{65, 7}, OrderCase{1000, 8}, OrderCase{65537, 9}));

TEST(SampleOrder, DependsOnSeedAndEpochAndIsSpreadOut) {
  const int64_t n = 10000;
  const SampleOrder a(n, 1), b(n, 2);
  int64_t same_seed = 0, same_epoch = 0, neighbours = 0;
  double mean_of_first_half = 0;
  for (int64_t i = 0; i < n; ++i) {
    same_seed += a.at(i) == b.at(i);
    same_epoch += a.at(i) == a.at(n + i);
    neighbours += i > 0 && std::abs(a.at(i) - a.at(i - 1)) == 1;
    mean_of_first_half += i < n / 2 ? static_cast<double>(a.at(i)) : 0;
  }
  // For random permutations these counts are Poisson of mean 1, 1 and 2: more than 15 has odds below 1e-8.
  EXPECT_LE(same_seed, 15);
  EXPECT_LE(same_epoch, 15);
  EXPECT_LE(neighbours, 15);
  // Mean of n / 2 draws without replacement: standard error n / sqrt(12 * n).
  EXPECT_NEAR(mean_of_first_half / (n / 2.0), n / 2.0, 5 * static_cast<double>(n) / std::sqrt(12.0 * n));
  EXPECT_EQ(SampleOrder(n, 1).at(77), a.at(77));
}

TEST(SampleOrder, WorksAtTheSizeOfARealRunAndWithoutShuffle) {
  const SampleOrder order(146'500'000, 1234);  // 300B tokens of 2,048
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 10000; ++i) seen.insert(order.at(i));
  EXPECT_EQ(seen.size(), 10000u);
  EXPECT_GT(*seen.rbegin(), 140'000'000);
  const SampleOrder plain(5, 1, false);
  EXPECT_EQ(plain.at(13), 3);
  error_of(ErrorKind::argument, [] { SampleOrder(0, 1); });
  error_of(ErrorKind::internal, [&] { order.at(-1); });
}

DatasetOptions options_of(int64_t sequence_length, uint64_t seed = 1) {
  DatasetOptions options;
  options.sequence_length = sequence_length, options.vocab_size = 50000, options.seed = seed;
  options.verify_below = 1 << 20;
  return options;
}

TEST(Dataset, SampleIsTheWindowOfTheConcatenation) {
  const TempDir dir;
  counting_shards(dir.path(), {10, 1, 25, 64, 3});  // 103 tokens; windows cross one, two and three borders
  for (const int64_t S : {1, 2, 7, 16, 51, 102}) {
    const Dataset data(dir.path(), "train", options_of(S));
    const int64_t n = data.samples_per_epoch();
    ASSERT_EQ(n, 102 / S);
    const SampleOrder order(n, 1);
    std::vector<int32_t> tokens(static_cast<size_t>(2 * n * S)), targets(tokens.size());
    data.load(0, 2 * n, tokens.data(), targets.data());
    for (int64_t i = 0; i < 2 * n; ++i) {
      for (int64_t t = 0; t < S; ++t) {
        const auto at = static_cast<size_t>(i * S + t);
        ASSERT_EQ(tokens[at], order.at(i) * S + t) << "sample " << i << " token " << t << " S " << S;
        ASSERT_EQ(targets[at], tokens[at] + 1);
      }
    }
  }
}

// The tokens that `ranks` ranks see from global sample `first` on, `steps` steps of 6 samples, put together.
std::vector<int32_t> global_order(const Dataset& data, int ranks, int64_t first, int64_t steps) {
  const int64_t S = data.sequence_length(), batch = 6, share = batch / ranks;
  std::vector<int32_t> all;
  for (int64_t step = 0; step < steps; ++step) {
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<int32_t> tokens(static_cast<size_t>(share * S)), targets(tokens.size());
      data.load(first + step * batch + rank * share, share, tokens.data(), targets.data());
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
  }
  return all;
}

TEST(Dataset, OrderDoesNotDependOnRanksAndResumes) {
  const TempDir dir;
  counting_shards(dir.path(), {500, 700, 300});
  const Dataset data(dir.path(), "train", options_of(8));
  const std::vector<int32_t> one = global_order(data, 1, 0, 50);  // more than one epoch of 187 samples
  for (const int ranks : {2, 3, 6}) {
    EXPECT_EQ(global_order(data, ranks, 0, 50), one);
    // Stopped after 20 steps on one rank, gone on with another number by the cursor alone.
    const Dataset again(dir.path(), "train", options_of(8));
    std::vector<int32_t> resumed = global_order(data, 1, 0, 20);
    const std::vector<int32_t> rest = global_order(again, ranks, 20 * 6, 30);
    resumed.insert(resumed.end(), rest.begin(), rest.end());
    EXPECT_EQ(resumed, one);
  }
}

TEST(Dataset, TheMegatronOrderResumesOnAnyNumberOfRanks) {
  const TempDir dir;
  counting_shards(dir.path(), {500, 700, 300});
  DatasetOptions options = options_of(8);
  options.order = OrderKind::megatron, options.samples = 300;  // two epochs of 187
  const Dataset data(dir.path(), "train", options);
  const std::vector<int32_t> one = global_order(data, 1, 0, 50);
  for (const int ranks : {2, 3, 6}) {
    EXPECT_EQ(global_order(data, ranks, 0, 50), one);
    const Dataset again(dir.path(), "train", options);
    EXPECT_EQ(global_order(again, ranks, 20 * 6, 30),
              std::vector<int32_t>(one.begin() + 20 * 6 * 8, one.end()));
  }
  std::vector<int32_t> tokens(8), targets(8);
  data.load(0, 1, tokens.data(), targets.data());
  EXPECT_EQ(targets[0], tokens[1]);
  EXPECT_NE(error_of(ErrorKind::data, [&] { data.load(374, 1, tokens.data(), targets.data()); })
                .find("374 samples"),
            std::string::npos);
  data.prefetch(370, 10);  // a hint past the end is no error
}

TEST(Dataset, MaskedTargetsFollowEndsOfDocuments) {
  const TempDir dir;
  counting_shards(dir.path(), {40}, 50);  // eod is 7
  DatasetOptions options = options_of(4);
  options.shuffle = false, options.mask_eod_loss = true, options.vocab_size = 50;
  std::vector<int32_t> tokens(12), targets(12);
  Dataset(dir.path(), "train", options).load(0, 3, tokens.data(), targets.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(targets, (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, -1, 9, 10, 11, 12}));
}

TEST(Dataset, FingerprintNamesContentSeedOrderAndLength) {
  const TempDir dir, other;
  counting_shards(dir.path(), {500, 700});
  counting_shards(other.path(), {500, 701});
  const auto print = [&](const TempDir& where, const DatasetOptions& options) {
    return Dataset(where.path(), "train", options).fingerprint();
  };
  const std::string base = print(dir, options_of(8));
  EXPECT_EQ(print(dir, options_of(8)), base);
  EXPECT_NE(print(dir, options_of(8, 2)), base);
  EXPECT_NE(print(dir, options_of(9)), base);
  EXPECT_NE(print(other, options_of(8)), base);
  DatasetOptions in_order = options_of(8);
  in_order.shuffle = false;
  EXPECT_NE(print(dir, in_order), base);
}

TEST(Dataset, VocabularyAndLengthAreChecked) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {100, 100}, 200);
  DatasetOptions options = options_of(8);
  options.vocab_size = 199;
  EXPECT_NE(error_of(ErrorKind::data, [&] { Dataset(dir.path(), "train", options); }).find("vocab_size"),
            std::string::npos);
  options = options_of(200);
  EXPECT_NE(error_of(ErrorKind::data, [&] { Dataset(dir.path(), "train", options); }).find("201"),
            std::string::npos);
  options = options_of(0);
  error_of(ErrorKind::argument, [&] { Dataset(dir.path(), "train", options); });
  EXPECT_EQ(Dataset(dir.path(), "train", options_of(199)).samples_per_epoch(), 1);
}

TEST(Dataset, ATokenPastTheVocabularyIsNamed) {
  const TempDir dir;
  counting_shards(dir.path(), {100, 100}, 300);
  // A manifest and attributes that claim a smaller vocabulary than the tokens need: read as foreign file.
  const hid_t file = H5Fcreate((dir / "foreign.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t n = 20;
  std::vector<uint16_t> tokens(n, 3);
  tokens[13] = 400;
  const hid_t space = H5Screate_simple(1, &n, nullptr);
  const hid_t data = H5Dcreate2(file, "data", H5T_STD_U16LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(data, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data());
  H5Dclose(data), H5Sclose(space), H5Fclose(file);
  DatasetOptions options = options_of(4);
  options.vocab_size = 300;
  const Dataset dataset(dir / "foreign.h5", "train", options);
  std::vector<int32_t> in(16), out(16);
  const std::string message = error_of(ErrorKind::data, [&] { dataset.load(0, 4, in.data(), out.data()); });
  EXPECT_NE(message.find("foreign.h5"), std::string::npos) << message;
  EXPECT_NE(message.find("token 13 of the stream is 400"), std::string::npos) << message;
}

TEST(ShardManifest, DamageIsFoundAndNamed) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {100, 200, 300});
  const auto second = dir / manifest.shards[1].file;
  verify_files(manifest);
  EXPECT_EQ(read_manifest(dir.path(), "train").n_tokens(), 600);
  EXPECT_EQ(read_manifest(second, "train").n_tokens(), 200);
  EXPECT_NE(error_of(ErrorKind::data, [&] { read_manifest(dir.path(), "valid"); }).find("*-valid.json"),
            std::string::npos);
  error_of(ErrorKind::data, [&] { read_manifest(dir / "none", "train"); });

  flip_bit(second, static_cast<int64_t>(std::filesystem::file_size(second)) - 1);
  EXPECT_NE(error_of(ErrorKind::data, [&] { verify_files(manifest); }).find(manifest.shards[1].file),
            std::string::npos);
  ShardManifest wrong = manifest;
  wrong.shards[2].n_tokens = 299;
  EXPECT_NE(error_of(ErrorKind::data, [&] { TokenStream{wrong}; }).find(manifest.shards[2].file),
            std::string::npos);
  wrong = manifest;
  wrong.tokenizer_sha256 = "another";
  EXPECT_NE(error_of(ErrorKind::data, [&] { TokenStream{wrong}; }).find("another tokenizer"),
            std::string::npos);
  std::filesystem::remove(second);
  EXPECT_NE(error_of(ErrorKind::data, [&] { TokenStream{manifest}; }).find(manifest.shards[1].file),
            std::string::npos);
  for (const char* text : {"{", "[]", "{\"format\": \"ziggurat-shards\"}", "{\"format\": \"other\"}"}) {
    write_text(dir / "counting-train.json", text);
    EXPECT_NE(
        error_of(ErrorKind::data, [&] { read_manifest(dir.path(), "train"); }).find("counting-train.json"),
        std::string::npos);
  }
}

TEST(ShardManifest, AnotherVersionIsRefused) {
  const TempDir dir;
  counting_shards(dir.path(), {100});
  const auto file = dir / "counting-train.json";
  std::string text = read_text(file);
  const size_t at = text.find("\"version\": 1");
  ASSERT_NE(at, std::string::npos) << text;
  write_text(file, text.replace(at, 12, "\"version\": 2"));
  const std::string message = error_of(ErrorKind::data, [&] { read_manifest(dir.path(), "train"); });
  EXPECT_NE(message.find("counting-train.json: version 2"), std::string::npos) << message;
  EXPECT_NE(message.find("reads version 1"), std::string::npos) << message;
}

}  // namespace
}  // namespace ziggurat
