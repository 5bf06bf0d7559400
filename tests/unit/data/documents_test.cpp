// Token 7 ends a document.
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/documents.h>
#include <ziggurat/data/sample_source.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using Ids = std::vector<int32_t>;

constexpr int32_t kEod = 7;

struct Located {
  Ids positions, first_key;
};
Located locate(const Ids& tokens, int64_t length) {
  Located found{Ids(tokens.size(), -1), Ids(tokens.size(), -1)};
  const auto count = static_cast<int64_t>(tokens.size()) / length;
  locate_documents(tokens.data(), count, length, kEod, found.positions.data(), found.first_key.data());
  return found;
}

TEST(Documents, TheEndTokenBelongsToTheDocumentItEnds) {
  const Located found = locate({1, 2, 7, 3, 4, 5, 7, 6}, 8);
  EXPECT_EQ(found.positions, (Ids{0, 1, 2, 0, 1, 2, 3, 0}));
  EXPECT_EQ(found.first_key, (Ids{0, 0, 0, 3, 3, 3, 3, 7}));
}

TEST(Documents, EndsAtTheBordersAndNextToEachOther) {
  const Located found = locate({7, 7, 7, 1, 1, 7}, 6);
  EXPECT_EQ(found.positions, (Ids{0, 0, 0, 0, 1, 2}));
  EXPECT_EQ(found.first_key, (Ids{0, 1, 2, 3, 3, 3}));
  EXPECT_EQ(locate({7, 7}, 1).positions, (Ids{0, 0}));
  EXPECT_EQ(locate({7, 7}, 1).first_key, (Ids{0, 0}));
}

TEST(Documents, EverySequenceBeginsAnew) {
  // The second sequence goes on with a document of the first; the third follows an end.
  const Located found = locate({1, 7, 2, 3, 4, 7, 5, 6, 7}, 3);
  EXPECT_EQ(found.positions, (Ids{0, 1, 0, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(found.first_key, (Ids{0, 0, 2, 0, 0, 0, 0, 0, 0}));
}

TEST(Documents, EitherMayBeLeftOut) {
  const Ids tokens = {1, 7, 2, 3};
  Ids positions(4, -1), first_key(4, -1);
  locate_documents(tokens.data(), 1, 4, kEod, positions.data(), nullptr);
  locate_documents(tokens.data(), 1, 4, kEod, nullptr, first_key.data());
  EXPECT_EQ(positions, locate(tokens, 4).positions);
  EXPECT_EQ(first_key, locate(tokens, 4).first_key);
}

// The definition, token by token: a document begins at the sequence's begin or after an end before this
// token.
TEST(Documents, RandomTokensEqualTheDefinition) {
  const Philox rng(1, Purpose::test);
  constexpr int64_t kCount = 20, kLength = 37;
  Ids tokens;
  for (uint64_t i = 0; i < kCount * kLength; ++i) tokens.push_back(static_cast<int32_t>(5 + rng.bits(i) % 6));
  const Located found = locate(tokens, kLength);
  for (int64_t i = 0; i < kCount * kLength; ++i) {
    int64_t begin = i;
    while (begin % kLength != 0 && tokens[static_cast<size_t>(begin - 1)] != kEod) --begin;
    EXPECT_EQ(found.positions[static_cast<size_t>(i)], i - begin);
    EXPECT_EQ(found.first_key[static_cast<size_t>(i)], begin % kLength);
  }
}

// One shard of documents of `tokens` tokens; every `ended`-th ends with kEod, the others don't.
void write_documents(const std::filesystem::path& file, int64_t documents, int64_t tokens, int64_t ended) {
  ShardInfo info;
  info.vocab_size = 50, info.eod_id = kEod;
  ShardBuilder builder(info);
  for (int64_t d = 0; d < documents; ++d) {
    Ids ids(static_cast<size_t>(tokens), 1);
    if (ended > 0 && d % ended == 0) ids.back() = kEod;
    builder.append(ids);
  }
  builder.write(file);
}

DataConfig with_all_options(const std::string& train) {
  DataConfig config;
  config.train = train;
  config.reset_positions = config.reset_attention = config.mask_eod_loss = true;
  return config;
}

TEST(Documents, SourcesNameTheTokenThatEndsThem) {
  const TempDir dir;
  write_documents(dir / "a.h5", 10, 4, 1);
  write_documents(dir / "b.h5", 20, 5, 1);
  DataConfig config = with_all_options(dir / "a.h5");
  EXPECT_EQ(open_samples(config, Split::train, 4, 50, 10)->eod_id(), kEod);
  config.train.clear();
  config.blend = {{"a", 0.5, dir / "a.h5", "", ""}, {"b", 0.5, dir / "b.h5", "", ""}};
  EXPECT_EQ(open_samples(config, Split::train, 4, 50, 10)->eod_id(), kEod);
}

TEST(Documents, OptionsThatNeedAnEndTokenSaySo) {
  const TempDir dir;
  ShardInfo without;
  without.vocab_size = 50;
  ShardBuilder builder(without);
  builder.append(Ids(40, 1));
  builder.write(dir / "no_eod.h5");
  for (const char* option : {"mask_eod_loss", "reset_positions", "reset_attention"}) {
    DataConfig config;
    parse_config(config, fmt::format("{{valid: {}, {}: true}}", (dir / "no_eod.h5").string(), option));
    const std::string message =
        error_of(ErrorKind::config, [&] { open_samples(config, Split::valid, 4, 50, 10); });
    EXPECT_NE(message.find(fmt::format("data.{}: the tokens of data.valid", option)), std::string::npos)
        << message;
    const std::string synthetic = error_of(ErrorKind::config, [&] {
      parse_config(config, fmt::format("{{valid: synthetic, {}: true}}", option));
    });
    EXPECT_NE(synthetic.find(fmt::format("{}: data.valid: the synthetic language", option)),
              std::string::npos)
        << synthetic;
  }
  for (const std::string& path : {(dir / "no_eod.h5").string(), std::string("synthetic")}) {
    DataConfig config;
    config.valid = path;
    EXPECT_EQ(open_samples(config, Split::valid, 4, 50, 10)->eod_id(), -1);
  }
}

// As --no-eod leaves them, or as a wrong --eod-id calls them: the attributes name a token, the documents
// don't end with it.
TEST(Documents, OptionsThatNeedDocumentsToEndLookAtThem) {
  const TempDir dir;
  write_documents(dir / "none.h5", 30, 8, 0);
  write_documents(dir / "half.h5", 30, 8, 2);
  write_documents(dir / "all.h5", 30, 8, 1);
  const auto message = [&](const DataConfig& config) {
    const std::string trained =
        error_of(ErrorKind::config, [&] { open_samples(config, Split::train, 4, 50, 10); });
    EXPECT_EQ(error_of(ErrorKind::config, [&] { check_samples(config, Split::train, 4, 50); }), trained);
    return trained;
  };
  EXPECT_NE(message(with_all_options(dir / "none.h5"))
                .find("data.mask_eod_loss, data.reset_positions, data.reset_attention: of 30 documents of "
                      "data.train looked at, 30 do not end with the end-of-document token 7"),
            std::string::npos);
  EXPECT_NE(message(with_all_options(dir / "half.h5")).find("15 do not end"), std::string::npos);
  DataConfig blend = with_all_options("");
  blend.blend = {{"a", 0.5, dir / "all.h5", "", ""}, {"b", 0.5, dir / "none.h5", "", ""}};
  EXPECT_NE(message(blend).find("data.blend.1.train"), std::string::npos);
  DataConfig off;
  off.train = dir / "none.h5";
  EXPECT_NO_THROW(open_samples(off, Split::train, 4, 50, 10));
  EXPECT_NO_THROW(check_samples(with_all_options(dir / "all.h5"), Split::train, 4, 50));
}

}  // namespace
}  // namespace ziggurat
