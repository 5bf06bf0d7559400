// A config's tokenizer and its shards, held against each other.
#include <gmock/gmock.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/sample_source.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::filesystem::path write_shard(const std::filesystem::path& file, int64_t vocab_size, int64_t eod_id,
                                  const std::string& fingerprint) {
  ShardInfo info;
  info.vocab_size = vocab_size, info.eod_id = eod_id, info.tokenizer_sha256 = fingerprint;
  ShardBuilder builder(info);
  builder.append(std::vector<int32_t>(40, 1));
  builder.write(file);
  return file;
}

class TokenizerOfShards : public ::testing::Test {
 protected:
  std::string message(const DataConfig& config, int64_t vocab_size = 257) {
    return error_of(ErrorKind::data, [&] { check_tokenizer(config, vocab_size); });
  }
  const TempDir dir_;
  const std::string bytes_ = load_tokenizer("bytes")->fingerprint();
  DataConfig config_ = [] {
    DataConfig c;
    c.tokenizer = "bytes";
    return c;
  }();
};

TEST_F(TokenizerOfShards, FitsByItsFingerprint) {
  config_.train = write_shard(dir_ / "train.h5", 257, 256, bytes_);
  config_.valid = config_.test = config_.train;
  EXPECT_NO_THROW(check_tokenizer(config_, 257));
  const std::string other(64, 'a');
  const std::string wrong = write_shard(dir_ / "other.h5", 257, 256, other);
  for (std::string* path : {&config_.train, &config_.valid, &config_.test}) {
    const std::string right = std::exchange(*path, wrong);
    EXPECT_THAT(message(config_),
                AllOf(HasSubstr("data.tokenizer: the tokenizer bytes"), HasSubstr(bytes_.substr(0, 12)),
                      HasSubstr(other.substr(0, 12)), HasSubstr(wrong)));
    *path = right;
  }
  config_.train.clear();
  config_.blend = {{"a", 1, dir_ / "train.h5", "", ""}, {"b", 1, wrong, "", ""}};
  EXPECT_THAT(message(config_), HasSubstr("data.blend.1.train: the shards"));
}

TEST_F(TokenizerOfShards, FitsByItsSizeWhereThereIsNoFingerprint) {
  config_.valid = write_shard(dir_ / "fits.h5", 257, 256, "");
  EXPECT_NO_THROW(check_tokenizer(config_, 300));
  config_.valid = write_shard(dir_ / "silent.h5", 257, -1, "");
  EXPECT_NO_THROW(check_tokenizer(config_, 300));
  config_.valid = write_shard(dir_ / "larger.h5", 300, 256, "");
  EXPECT_THAT(message(config_, 300), HasSubstr("one of 300"));
  config_.valid = write_shard(dir_ / "other_end.h5", 257, 0, "");
  EXPECT_THAT(message(config_, 300), AllOf(HasSubstr("ends documents with token 256"), HasSubstr("with 0")));
}

TEST_F(TokenizerOfShards, MustExistAndFitTheModel) {
  config_.train = write_shard(dir_ / "train.h5", 257, 256, bytes_);
  EXPECT_THAT(message(config_, 256),
              AllOf(HasSubstr("a vocabulary of 257"), HasSubstr("(model.vocab_size) one of 256")));
  config_.tokenizer = dir_ / "nowhere";
  EXPECT_THAT(message(config_), AllOf(HasSubstr("data.tokenizer: "), HasSubstr("nowhere")));
  config_.tokenizer.clear();
  EXPECT_NO_THROW(check_tokenizer(config_, 256));
  config_.tokenizer = dir_ / "nowhere";
  config_.train = "synthetic";  // no shards that it could fit
  EXPECT_NO_THROW(check_tokenizer(config_, 256));
}

TEST_F(TokenizerOfShards, PathsThatAreElsewhereAreListed) {
  config_.train = write_shard(dir_ / "train.h5", 257, 256, bytes_);
  config_.valid = "/nowhere/valid";
  config_.blend = {{"a", 1, "", "", "/nowhere/test"}};
  config_.tokenizer = "/nowhere/tokenizer";
  const PresentData present = present_data(config_);
  EXPECT_THAT(present.missing, ElementsAre("data.valid: /nowhere/valid", "data.blend.0.test: /nowhere/test",
                                           "data.tokenizer: /nowhere/tokenizer"));
  EXPECT_EQ(present.config.train, config_.train);
  EXPECT_TRUE(present.config.valid.empty());
  EXPECT_NO_THROW(check_tokenizer(present.config, 257));
  config_.valid = "synthetic", config_.tokenizer = "bytes", config_.blend.clear();
  EXPECT_TRUE(present_data(config_).missing.empty());
}

}  // namespace
}  // namespace ziggurat
