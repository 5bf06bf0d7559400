// What `ziggurat config help KEY` and `config explain` tell of a run beyond the field lists.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/other_names.h"
#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/explain.h>
#include <ziggurat/train/derived_figures.h>
#include <ziggurat/train/key_notes.h>

namespace ziggurat::train {
namespace {

using ::testing::HasSubstr;

TEST(KeyNotes, AreOfKeysThatThereAre) {
  for (const KeyNote& note : key_notes()) EXPECT_NO_THROW(key_help<RunConfig>(note.key)) << note.key;
}

TEST(KeyNotes, SayOfEveryKeyWhoUsesIt) {
  RunConfig config;
  for_each_value(config, [](const std::string& key, const Field&) {
    EXPECT_THAT(note_of_key(key_in_lists(key)), HasSubstr("used by")) << key;
  });
  EXPECT_THAT(note_of_key("model.blocks.N.pattern.N.experts"), HasSubstr("model/gpt.h"));
  EXPECT_THAT(note_of_key("optimizer.lr"), HasSubstr("paper"));
  EXPECT_THAT(note_of_key("model.dropout.hidden"), ::testing::Not(HasSubstr("paper")));  // said of the struct
}

// The headers that a note names are there to be read.
TEST(KeyNotes, NameHeadersThatThereAre) {
  for (const KeyNote& note : key_notes()) {
    std::string text = note.used_by == nullptr ? "" : note.used_by;
    for (size_t end; (end = text.find(".h")) != text.npos; text.erase(0, end + 2)) {
      const size_t begin = text.find_last_of(" ,:", end) == text.npos ? 0 : text.find_last_of(" ,:", end) + 1;
      const std::string header = text.substr(begin, end + 2 - begin);
      EXPECT_TRUE(std::filesystem::exists(test::source_dir() + "/include/ziggurat/" + header)) << header;
    }
  }
}

// What other trainers call a key is answered by a key that there is.
TEST(OtherNames, AreOfKeysThatThereAre) {
  for (const OtherName& name : other_names()) {
    EXPECT_NO_THROW(key_help<RunConfig>(std::string(name.ours))) << name.theirs;
    EXPECT_THAT(ziggurat::testing::error_of(ErrorKind::config,
                                            [&] { key_help<RunConfig>(std::string(name.theirs)); }),
                HasSubstr("did you mean '" + std::string(name.ours) + "'?"));
  }
}

std::map<std::string, std::string> figures(const std::string& file, int ranks,
                                           const std::vector<std::string>& overrides = {}) {
  RunConfig config;
  load_config(config, test::source_dir() + "/configs/" + file, overrides);
  std::map<std::string, std::string> map;
  for (auto& [what, figure] : derived_figures(config, ranks)) map[what] = figure;
  return map;
}

TEST(DerivedFigures, AreThoseOfTheConfig) {
  auto f = figures("tiny/pr_moe.yaml", 4);
  EXPECT_EQ(f["steps"], "98");  // 200,000 tokens by 32 x 64, rounded up
  EXPECT_EQ(f["tokens of a step"], "2048");
  EXPECT_EQ(f["micro-batches of a step"], "8, 2 a rank");
  EXPECT_EQ(f["vocabulary"], "96 padded to 96: 0.0% of the rows are never used");
  // 4 x 64 tokens, top-1, capacity factor 1.
  EXPECT_EQ(f["of 8 experts (1 layer), one"],
            "32.0 tokens of a micro-batch's 256, room for 32: 0.0% of it spare when all get as many");
}

TEST(DerivedFigures, TellRoomThatIsSpareOrMissing) {
  auto f = figures("tiny/pr_moe.yaml", 1, {"model.moe.capacity_factor=1.25"});
  EXPECT_THAT(f["of 8 experts (1 layer), one"], HasSubstr("room for 40: 20.0% of it spare"));
  f = figures("tiny/pr_moe.yaml", 1, {"model.moe.capacity_factor=0.5"});
  EXPECT_THAT(f["of 8 experts (1 layer), one"], HasSubstr("room for 16: fewer than come"));
  f = figures("tiny/pr_moe.yaml", 1, {"model.moe.drop=none"});
  EXPECT_THAT(f["of 8 experts (1 layer), one"], HasSubstr("nothing is dropped"));
  EXPECT_FALSE(f.contains("a rank sends in a step"));  // alone
}

// A dense model's gradients, once a step: 2 (R-1)/R of them, and norms.
TEST(DerivedFigures, CountBytesOnTheWire) {
  auto f = figures("tiny/350m_dense.yaml", 2, {"precision=fp32"});
  ASSERT_TRUE(f.contains("a rank sends in a step"));
  RunConfig config;
  load_config(config, test::source_dir() + "/configs/tiny/350m_dense.yaml", {});
  const double gradients =
      4.0 * static_cast<double>(model::count(config.model, config.batch.sequence_length).parameters);
  const auto sent = static_cast<double>(parse_bytes(f["a rank sends in a step"]));
  EXPECT_GE(sent, 0.995 * gradients);
  EXPECT_LE(sent, 1.03 * gradients);
}

}  // namespace
}  // namespace ziggurat::train
