// One key explained, where values come from, and what an unknown key was meant to be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/sample_config.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/explain.h>

namespace ziggurat::config_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_text;

TEST(KeyHelp, TellsTypeUnitRangeAndDefault) {
  EXPECT_EQ(key_help<Train>("optimizer.decay_tokens"),
            "optimizer.decay_tokens\n"
            "  end of the cosine\n"
            "  type      tokens\n"
            "  unit      tokens; K, M, B, T are powers of 1000 (300B)\n"
            "  range     at least 1\n"
            "  default   260B\n");
}

TEST(KeyHelp, AnyElementOfAListIsN) {
  EXPECT_EQ(key_help<Train>("blocks.7.repeat"), key_help<Train>("blocks.N.repeat"));
  EXPECT_THAT(key_help<Train>("blocks.7.repeat"), HasSubstr("default   1"));
}

TEST(KeyHelp, OfAStructListsWhatIsInIt) {
  EXPECT_THAT(key_help<Train>("optimizer"), HasSubstr("optimizer.adam.beta1"));
  EXPECT_THAT(key_help<Train>("optimizer"), Not(HasSubstr("default")));
}

TEST(KeyHelp, AnUnknownKeyIsToldWithTheNearest) {
  EXPECT_THAT(ziggurat::testing::error_of(ErrorKind::config, [] { key_help<Train>("optimizer.lrr"); }),
              HasSubstr("did you mean 'optimizer.lr'?"));
  EXPECT_THAT(ziggurat::testing::error_of(ErrorKind::config, [] { key_help<Train>("zzzzzzzz"); }),
              HasSubstr("`ziggurat config help` lists all"));
}

// By name, by full path, and by the words of the help.
TEST(UnknownKey, IsLookedForInTheWholeConfig) {
  EXPECT_THAT(problems_of("lernin_rate: 1e-4"), HasSubstr("did you mean 'optimizer.lr'?"));
  EXPECT_THAT(problems_of("optimizer: {lernin_rate: 1e-4}"), HasSubstr("did you mean 'lr'?"));
  EXPECT_THAT(problems_of("warmup_token: 3"), HasSubstr("did you mean 'optimizer.warmup_tokens'?"));
  EXPECT_THAT(problems_of("", {"optimzer.lr=1"}), HasSubstr("did you mean 'optimizer'?"));
  EXPECT_THAT(problems_of("blocks: [{first_momentt: 1}]"), HasSubstr("did you mean 'optimizer.adam.beta1'?"));
  EXPECT_THAT(problems_of("entirely_else: 1"), HasSubstr("valid keys: name, compile"));
}

// A good path around a name that is near to nothing makes no key near: n_layers is not init_std.
TEST(UnknownKey, IsNotLookedForByTheLettersOfItsStruct) {
  EXPECT_THAT(problems_of("optimizer: {n_xyz: 1}"), HasSubstr("valid keys: lr"));
}

TEST(UnknownKey, OfAnotherTrainerIsToldAsOurs) {
  EXPECT_THAT(problems_of("adam_beta1: 1", {"warmup_steps=3"}),
              HasSubstr("did you mean 'optimizer.warmup_tokens'?"));
  EXPECT_THAT(problems_of("n_layers: 1"), HasSubstr("valid keys: name"));  // this config has no model
}

struct Two {
  int schedule = 0;
  double lr = 1;
  template <class V>
  void visit_fields(V& v) {
    v.field("schedule", schedule, "learning rate after the warm-up");
    v.field("lr", lr, "peak learning rate");
  }
};
struct Around {
  Two optimizer;
  template <class V>
  void visit_fields(V& v) {
    v.field("optimizer", optimizer, "how weights move");
  }
};

TEST(UnknownKey, IsTheOneThatSaysLeastElse) {
  EXPECT_THAT(problems_of<Around>("lernin_rate: 1"), HasSubstr("did you mean 'optimizer.lr'?"));
}

const ValueOrigin& find(const std::vector<ValueOrigin>& origins, const std::string& key) {
  for (const ValueOrigin& origin : origins) {
    if (origin.key == key) return origin;
  }
  throw std::runtime_error(key);
}

TEST(Explain, SaysWhereEveryValueComesFrom) {
  const TempDir folder;
  write_text(folder / "base.yaml", "name: base\noptimizer:\n  lr: 1e-3\n  decay_tokens: 1B\nsizes: [4]\n");
  write_text(folder / "run.yaml",
             "include: base.yaml\nname: run\noptimizer: {lr: 2e-3}\nblocks:\n  - repeat: 3\n");
  const std::string base = folder / "base.yaml", run = folder / "run.yaml";
  Train config;
  const std::vector<std::string> overrides = {"optimizer.lr=3e-3", "blocks.0.repeat=5"};
  const std::vector<ValueOrigin> origins = explain_config(config, run, overrides);
  EXPECT_EQ(config.optimizer.lr, 3e-3);

  const ValueOrigin& lr = find(origins, "optimizer.lr");
  EXPECT_EQ(lr.value, "0.003");
  EXPECT_EQ(lr.place, "override 'optimizer.lr=3e-3'");
  EXPECT_THAT(lr.covered, ElementsAre(run + ":3:17", base + ":3:7"));
  EXPECT_EQ(find(origins, "name").place, run + ":2:7");
  EXPECT_THAT(find(origins, "name").covered, ElementsAre(base + ":1:7"));
  EXPECT_EQ(find(origins, "sizes").place, base + ":5:8");
  EXPECT_THAT(find(origins, "sizes").covered, IsEmpty());
  EXPECT_EQ(find(origins, "blocks.0.repeat").place, "override 'blocks.0.repeat=5'");
  EXPECT_THAT(find(origins, "blocks.0.repeat").covered, ElementsAre(run + ":5:13"));
  EXPECT_EQ(find(origins, "optimizer.warmup_tokens").place, "");  // the default
  EXPECT_EQ(find(origins, "blocks.0.ffn").place, "");
}

TEST(Explain, RefusesWhatLoadingRefuses) {
  const TempDir folder;
  write_text(folder / "run.yaml", "nam: x\n");
  Train config;
  EXPECT_THAT(
      ziggurat::testing::error_of(ErrorKind::config, [&] { explain_config(config, folder / "run.yaml"); }),
      HasSubstr("did you mean 'name'?"));
}

}  // namespace
}  // namespace ziggurat::config_test
