#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/vocabulary.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

const std::string kOne(64, '1'), kTwo(64, '2');

TEST(Vocabulary, FitsByFingerprintAndWithoutOneBySize) {
  const Vocabulary tokenizer{"the tokenizer tok", kOne, 400};
  EXPECT_FALSE(misfit(tokenizer, {"shards", kOne, 400}));
  EXPECT_FALSE(misfit(tokenizer, {"shards", kOne.substr(0, 16), 0}));
  EXPECT_FALSE(misfit(tokenizer, {"shards", "", 400}));
  EXPECT_FALSE(misfit(tokenizer, {"shards", "", 0}));
  EXPECT_TRUE(misfit(tokenizer, {"shards", kTwo, 400}));
  EXPECT_TRUE(misfit(tokenizer, {"shards", "", 401}));
  EXPECT_TRUE(misfit(tokenizer, {"shards", "", 399}));
}

TEST(Vocabulary, AModelMayHaveSpareIdsButNotTooFew) {
  const Vocabulary tokenizer{"the tokenizer tok", kOne, 400};
  EXPECT_FALSE(misfit(tokenizer, {"the model", "", 4096, true}));
  EXPECT_FALSE(misfit({"the model", kOne, 400, true}, tokenizer));
  EXPECT_TRUE(misfit(tokenizer, {"the model", "", 399, true}));
  EXPECT_TRUE(misfit({"the model", kOne, 399, true}, tokenizer));
  EXPECT_TRUE(misfit({"the model", kTwo, 4096, true}, tokenizer));
}

TEST(Vocabulary, TheMessageNamesBothSidesAndTheCure) {
  const auto tokenizer = load_tokenizer("bytes");
  ShardManifest shards;
  shards.tokenizer_sha256 = kTwo, shards.vocab_size = 257;
  std::string message = error_of(ErrorKind::data, [&] {
    check_fit(vocabulary_of(*tokenizer, "bytes"), vocabulary_of(shards, "data/x"), "do this");
  });
  for (const std::string& part :
       {std::string("the tokenizer bytes"), tokenizer->fingerprint().substr(0, 12),
        std::string("the shards data/x"), kTwo.substr(0, 12), std::string("; do this")}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  shards.tokenizer_sha256.clear(), shards.vocab_size = 300;
  message = error_of(ErrorKind::data, [&] {
    check_fit(vocabulary_of(*tokenizer, "bytes"), vocabulary_of(shards, "data/x"), "do this");
  });
  for (const char* part : {"257", "300", "data/x"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

}  // namespace
}  // namespace ziggurat
