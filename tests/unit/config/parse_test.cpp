#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/sample_config.h"

namespace ziggurat::config_test {
namespace {

using ::testing::HasSubstr;

TEST(ConfigParse, EveryFieldType) {
  const Train t = parse(R"(name: 123
compile: true
optimizer:
  lr: 1e-4
  warmup_tokens: 1.5K
  decay_tokens: 300B
  adam: {beta1: 0.95}
blocks:
  - {ffn: dense, repeat: 3}
  - ffn: residual_moe
    experts: 64
sizes: [1, 2, 4]
tags: [a, "b c"]
note: "null"
cache: 512MiB
save_every: 36h
timeout: 90s
)");
  EXPECT_EQ(t.name, "123");
  EXPECT_TRUE(t.compile);
  EXPECT_EQ(t.optimizer.lr, 1e-4);
  EXPECT_EQ(t.optimizer.warmup_tokens, 1500);
  EXPECT_EQ(t.optimizer.decay_tokens, 300'000'000'000);
  EXPECT_EQ(t.optimizer.adam, (Adam{0.95, 1e-8}));
  EXPECT_EQ(t.blocks, (std::vector<Block>{{Ffn::dense, 3, {}}, {Ffn::residual_moe, 1, 64}}));
  EXPECT_EQ(t.sizes, (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(t.tags, (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(t.note, "null");
  EXPECT_EQ(t.cache, int64_t{512} << 20);
  EXPECT_EQ(t.save_every, 129600);
  EXPECT_EQ(t.timeout, 90.0);
}

TEST(ConfigParse, KeysThatNobodySetsKeepTheirValue) {
  EXPECT_EQ(parse(""), Train{});
  EXPECT_EQ(parse("# only a comment\n"), Train{});
  Train preset;
  preset.name = "preset";
  parse_config(preset, "compile: true");
  EXPECT_EQ(preset.name, "preset");
}

TEST(ConfigParse, AnErrorLeavesTheOutputUnchanged) {
  Train out;
  EXPECT_THROW(parse_config(out, "name: x\ncompile: maybe\n"), Error);
  EXPECT_EQ(out, Train{});
}

TEST(ConfigParse, AllProblemsAtOnceWithPlaceAndPath) {
  EXPECT_EQ(
      problems_of(R"(nam: x
compile: yes
optimizer:
  lr: fast
  warmup_toknes: 3
  decay_tokens: 1.2345K
  adam: 7
  lr: 1
blocks:
  - ffn: residul_moe
  - repeat: 0
sizes: [1, 65]
wurzelbrunft: 1
eps: 1
)"),
      "c.yaml:8:3: optimizer.lr: expected each key once, got it again; it was first set at c.yaml:4:3\n"
      "c.yaml:1:1: nam: expected a known key, got 'nam'; did you mean 'name'?\n"
      "c.yaml:2:10: compile: expected true or false, got 'yes'\n"
      "c.yaml:4:7: optimizer.lr: expected a number above 0, got 'fast' (it is not a number)\n"
      "c.yaml:5:3: optimizer.warmup_toknes: expected a known key, got 'warmup_toknes'; did you mean "
      "'warmup_tokens'?\n"
      "c.yaml:6:17: optimizer.decay_tokens: expected a whole number of tokens at least 1 (such as 1_000, "
      "375M "
      "or 300B), got '1.2345K' (it is not whole or does not fit 64 bits)\n"
      "c.yaml:7:9: optimizer.adam: expected a map of keys, got '7'\n"
      "c.yaml:10:10: blocks.0.ffn: expected one of dense, moe, residual_moe, got 'residul_moe'; did you mean "
      "'residual_moe'?\n"
      "c.yaml:11:13: blocks.1.repeat: expected a whole number at least 1, got '0'\n"
      "c.yaml:12:12: sizes.1: expected a whole number at least 1 and at most 64, got '65'\n"
      "c.yaml:13:1: wurzelbrunft: expected a known key, got 'wurzelbrunft'; valid keys: name, compile, "
      "optimizer, blocks, sizes, tags, note, cache, save_every, timeout\n"
      "c.yaml:14:1: eps: expected a known key, got 'eps'; did you mean 'optimizer.adam.eps'?");
}

TEST(ConfigParse, OverridesNameThemselves) {
  EXPECT_EQ(problems_of("optimizer: {lr: 1}",
                        {"optimizer.lr=fast", "optimizer.lrr=1", "blocks.7.repeat=2", "sizes=[1, x]", "oops",
                         "=3", "name.x=1", "note={a", "optimizer.adam=&a {}"}),
            "override 'oops': expected key=value, got no '='\n"
            "override '=3': expected key=value, got no key\n"
            "override 'note={a': expected valid YAML, got an error: end of map flow not found\n"
            "override 'optimizer.adam=&a {}': expected a value, got an anchor (&name): write each value out\n"
            "override 'optimizer.lr=fast': optimizer.lr: expected a number above 0, got 'fast' (it is not a "
            "number)\n"
            "override 'optimizer.lrr=1': optimizer.lrr: expected a known key, got 'lrr'; did you mean 'lr'?\n"
            "override 'blocks.7.repeat=2': blocks.7: expected an index below 2, got '7'\n"
            "override 'sizes=[1, x]': sizes.1: expected a whole number at least 1 and at most 64, got 'x' "
            "(it is not a "
            "number)\n"
            "override 'name.x=1': name: expected a text that is not empty, got the key 'x' below it");
}

TEST(ConfigParse, OverridesReachEverything) {
  const Train t = parse("blocks: [{}, {repeat: 2}]\noptimizer: {lr: 1}\n",
                        {"optimizer.lr=2", "optimizer.lr=3", "optimizer.adam.beta1=0.5", "blocks.1.repeat=5",
                         "sizes=[8]", "note=a=b", "cache=1_024"});
  EXPECT_EQ(t.optimizer.lr, 3.0);
  EXPECT_EQ(t.optimizer.adam.beta1, 0.5);
  EXPECT_EQ(t.blocks[1].repeat, 5);
  EXPECT_EQ(t.sizes, std::vector<int64_t>{8});
  EXPECT_EQ(t.note, "a=b");
  EXPECT_EQ(t.cache, 1024);
}

TEST(ConfigParse, OverridesReachListElementsThatOnlyTheDefaultsHave) {
  Train expected;
  expected.blocks[1].repeat = 7;
  expected.sizes[0] = 4;
  EXPECT_EQ(parse("", {"blocks.1.repeat=7", "sizes.0=4"}), expected);
}

TEST(ConfigParse, OverridesReplaceWholeMapsAndLists) {
  const Train t =
      parse("optimizer: {lr: 1, adam: {beta1: 0.1}}", {"optimizer={lr: 5}", "blocks=[{repeat: 4}]"});
  EXPECT_EQ(t.optimizer.lr, 5.0);
  EXPECT_EQ(t.optimizer.adam.beta1, 0.9);
  EXPECT_EQ(t.blocks, (std::vector<Block>{{Ffn::dense, 4, {}}}));
  EXPECT_EQ(problems_of("blocks: [{}]", {"blocks.1.repeat=2"}),
            "override 'blocks.1.repeat=2': blocks.1: expected an index below 1, got '1'");
  EXPECT_THAT(problems_of("", {"blocks.01.repeat=2"}), HasSubstr("expected an index below 2, got '01'"));
}

TEST(ConfigParse, ShapesMustFit) {
  EXPECT_EQ(problems_of("3"), "c.yaml:1:1: expected a map of keys, got '3'");
  EXPECT_EQ(problems_of("[a]"), "c.yaml:1:1: expected a map of keys, got a list");
  EXPECT_EQ(problems_of("name: [a]"), "c.yaml:1:7: name: expected a text that is not empty, got a list");
  EXPECT_EQ(problems_of("sizes: 3"), "c.yaml:1:8: sizes: expected a list, got '3'");
  EXPECT_EQ(problems_of("optimizer:\nname: x"), "c.yaml:1:1: optimizer: expected a map of keys, got nothing");
  EXPECT_EQ(problems_of("blocks: [dense]"), "c.yaml:1:10: blocks.0: expected a map of keys, got 'dense'");
  EXPECT_EQ(problems_of("compile: {a: 1}"),
            "c.yaml:1:10: compile: expected true or false, got a map of keys");
  EXPECT_EQ(problems_of("blocks: {0: {repeat: 2}}"),
            "c.yaml:1:9: blocks: expected a list, got a map of keys");
}

TEST(ConfigParse, NumbersAreStrict) {
  for (const char* text :
       {"nan", ".nan", "inf", "-.inf", ".inf", "012", "0x10", "1e999", "true", "1,5", "''", "~"}) {
    EXPECT_NE(problems_of(std::string("optimizer: {lr: ") + text + "}"), "no error") << text;
  }
  for (const char* text : {"012", "1.5", "3000000000", "one", "4K", "nan"}) {
    EXPECT_NE(problems_of(std::string("blocks: [{repeat: ") + text + "}]"), "no error") << text;
  }
  EXPECT_EQ(problems_of("blocks: [{repeat: 3000000000}]"),
            "c.yaml:1:19: blocks.0.repeat: expected a whole number at least 1, got '3000000000' (it does not "
            "fit 32 "
            "bits)");
  EXPECT_EQ(parse("sizes: [1_0]").sizes, std::vector<int64_t>{10});
}

TEST(ConfigParse, NullIsOnlyForOptionals) {
  EXPECT_EQ(parse("note: null\nblocks: [{experts: ~}]").note, std::nullopt);
  EXPECT_EQ(problems_of("name: null"), "c.yaml:1:1: name: expected a text that is not empty, got nothing");
  EXPECT_EQ(problems_of("tags: [~]"),
            "c.yaml:1:8: tags.0: expected a text, got nothing (write \"\" for an empty text)");
}

struct Needs {
  std::string path;
  int64_t steps = 0;
  std::vector<std::string> shards;
  Optimizer optimizer;
  template <class V>
  void visit_fields(V& v) {
    v.field("path", path, "where", not_empty);
    v.field("steps", steps, "how long", at_least(1));
    v.field("shards", shards, "files", not_empty);
    v.field("optimizer", optimizer, "how");
  }
};

TEST(ConfigParse, ADefaultOutsideItsRangeMakesTheKeyRequired) {
  EXPECT_EQ(problems_of<Needs>("optimizer: {}\n"),
            "c.yaml:1:1: path: expected a text that is not empty, got \"\" (not set)\n"
            "c.yaml:1:1: steps: expected a whole number at least 1, got 0 (not set)\n"
            "c.yaml:1:1: shards: expected a list that is not empty, got [] (not set)");
  EXPECT_EQ(problems_of<Needs>("{path: a, steps: 1, shards: [b]}"), "no error");
  EXPECT_EQ(problems_of<Needs>("{path: a, steps: 1, shards: []}"),
            "c.yaml:1:29: shards: expected a list that is not empty, got an empty one");
}

TEST(ConfigParse, ValidateSeesWholeStructsAndNamesThePlace) {
  EXPECT_EQ(problems_of("optimizer:\n  warmup_tokens: 5\n  decay_tokens: 5\nblocks: [{}, {ffn: moe}]\n"),
            "c.yaml:2:18: optimizer.warmup_tokens: must be below decay_tokens\n"
            "c.yaml:4:14: blocks.1.experts: expected a number of experts for a moe layer, got null");
  // From an override, and by a default that the text leaves alone.
  EXPECT_EQ(problems_of("", {"optimizer.warmup_tokens=1T"}),
            "override 'optimizer.warmup_tokens=1T': optimizer.warmup_tokens: must be below decay_tokens");
  EXPECT_EQ(problems_of("optimizer:\n  decay_tokens: 5\n"),
            "c.yaml:2:3: optimizer.warmup_tokens: must be below decay_tokens");
  // Not on top of a wrong value in the same struct; other structs are still judged.
  EXPECT_EQ(problems_of("optimizer: {warmup_tokens: 5, decay_tokens: x}\nblocks: [{ffn: moe}]"),
            "c.yaml:1:45: optimizer.decay_tokens: expected a whole number of tokens at least 1 (such as "
            "1_000, 375M or "
            "300B), got 'x' (it is not a number)\n"
            "c.yaml:2:10: blocks.0.experts: expected a number of experts for a moe layer, got null");
}

TEST(ConfigCheck, JudgesStructsFilledInCode) {
  Train t;
  EXPECT_NO_THROW(check_config(t));
  t.optimizer.adam.beta1 = 1.0;
  t.name = "";
  t.blocks[1].experts = std::nullopt;
  try {
    check_config(t);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "name: expected a text that is not empty, got \"\"\n"
                 "optimizer.adam.beta1: expected a number at least 0 and below 1, got 1\n"
                 "blocks.1.experts: expected a number of experts for a moe layer, got null");
  }
  t = Train{};
  t.optimizer.lr = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(check_config(t), Error);
}

// ---- declarations that are wrong themselves --------------------------------------------------------------

struct Twice {
  int a = 0;
  template <class V>
  void visit_fields(V& v) {
    v.field("a", a, "one");
    v.field("a", a, "two");
  }
};
struct BadName {
  int a = 0;
  template <class V>
  void visit_fields(V& v) {
    v.field("A.b", a, "one");
  }
};
struct NoHelp {
  int a = 0;
  template <class V>
  void visit_fields(V& v) {
    v.field("a", a, "");
  }
};
struct RangedText {
  std::string a;
  template <class V>
  void visit_fields(V& v) {
    v.field("a", a, "one", at_least(1));
  }
};
struct UnitText {
  std::string a;
  template <class V>
  void visit_fields(V& v) {
    v.field("a", a, "one", unit::bytes);
  }
};
struct NotEmptyNumber {
  int a = 0;
  template <class V>
  void visit_fields(V& v) {
    v.field("a", a, "one", not_empty);
  }
};

template <class T>
class WrongDeclaration : public ::testing::Test {};
using WrongDeclarations = ::testing::Types<Twice, BadName, NoHelp, RangedText, UnitText, NotEmptyNumber>;
TYPED_TEST_SUITE(WrongDeclaration, WrongDeclarations);

TYPED_TEST(WrongDeclaration, IsAnInternalError) {
  try {
    TypeParam out;
    parse_config(out, "");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::internal);
  }
}

}  // namespace
}  // namespace ziggurat::config_test
