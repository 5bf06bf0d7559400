#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/config/sample_config.h"

namespace ziggurat::config_test {
namespace {

using ::testing::HasSubstr;

Train unusual() {
  Train t;
  t.name = "a: #b \"c\" \\ \n\t\x01 'd' {e} gr\xc3\xbc\xc3\x9f\x65";
  t.compile = true;
  t.optimizer.lr = 0.1 + 0.2;
  t.optimizer.warmup_tokens = 1'234'567;
  t.optimizer.adam.eps = std::numeric_limits<double>::denorm_min();
  t.blocks = {Block{}, Block{Ffn::residual_moe, 3, 64}, Block{}};
  t.sizes = {};
  t.tags = {"", "null", "true", "~", "1", "-x", "a.b/c", "No", " pad "};
  t.note = "null";
  t.cache = 1536;
  t.save_every = 93'784;
  t.timeout = 1e-3;
  return t;
}

TEST(ConfigDump, FullText) {
  Train t;
  t.note = "two words";
  EXPECT_EQ(dump_config(t), R"(name: run  # name of the run
compile: false  # fuse kernels
optimizer:  # how weights move
  lr: 0.0003  # peak learning rate
  warmup_tokens: 375M  # linear warm-up
  decay_tokens: 260B  # end of the cosine
  adam:  # moments
    beta1: 0.9  # decay of the first moment
    eps: 1e-08  # added to the root of the second moment
blocks:  # layers, from the bottom
  - ffn: dense  # feed-forward kind
    repeat: 1  # how many such layers
    experts: null  # experts per layer
  - ffn: moe  # feed-forward kind
    repeat: 2  # how many such layers
    experts: 8  # experts per layer
sizes: [1, 2]  # expert-parallel sizes
tags: []  # free words
note: "two words"  # free text
cache: 2GiB  # page cache
save_every: 1h30m  # time between checkpoints
timeout: 0.5  # of a collective
)");
}

TEST(ConfigValues, AreVisitedInOrderWithTheirKeysAndTexts) {
  Train t;
  t.blocks.resize(1);
  std::vector<std::string> seen;
  for_each_value(
      t, [&](const std::string& key, const Field& field) { seen.push_back(key + "=" + value_text(field)); });
  EXPECT_THAT(seen, ::testing::IsSupersetOf({"name=run", "optimizer.adam.eps=1e-08", "blocks.0.experts=null",
                                             "sizes=[1, 2]", "cache=2GiB"}));
  EXPECT_EQ(seen.front(), "name=run");
  EXPECT_EQ(seen.back(), "timeout=0.5");
  t.blocks.clear();
  seen.clear();
  for_each_value(t, [&](const std::string& key, const Field& field) {
    if (key.starts_with("blocks")) seen.push_back(key + "=" + value_text(field));
  });
  EXPECT_THAT(seen, ::testing::ElementsAre("blocks=[]"));
}

TEST(ConfigDump, LoadsBackToTheSameValues) {
  for (const Train& t : {Train{}, unusual()}) {
    for (const DumpMode mode : {DumpMode::full, DumpMode::changed}) {
      Train back;
      parse_config(back, dump_config(t, mode));
      EXPECT_EQ(back, t) << dump_config(t, mode);
    }
  }
}

TEST(ConfigDump, ExtremeNumbersLoadBack) {
  for (const int64_t value :
       {int64_t{0}, int64_t{-5}, int64_t{999}, int64_t{1000}, int64_t{1500}, int64_t{1'050'000}, int64_t{60},
        int64_t{3601}, INT64_MAX, INT64_MAX / 1000 * 1000}) {
    Train t;
    t.cache = t.save_every = t.optimizer.warmup_tokens = value;
    t.optimizer.decay_tokens = INT64_MAX;
    t.optimizer.warmup_tokens = std::max<int64_t>(0, value == INT64_MAX ? value - 1 : value);
    EXPECT_EQ(parse(dump_config(t)), t) << dump_config(t);
  }
}

TEST(ConfigDump, ChangedLeavesOutDefaults) {
  EXPECT_EQ(dump_config(Train{}, DumpMode::changed), "");
  Train t;
  t.optimizer.adam.beta1 = 0.5;
  t.blocks = {Block{}, Block{Ffn::dense, 9, {}}};
  EXPECT_EQ(dump_config(t, DumpMode::changed), R"(optimizer:  # how weights move
  adam:  # moments
    beta1: 0.5  # decay of the first moment
blocks:  # layers, from the bottom
  - {}
  - repeat: 9  # how many such layers
)");
}

TEST(ConfigDiff, NamesEveryDifference) {
  EXPECT_TRUE(config_diff(unusual(), unusual()).empty());
  Train a, b;
  b.optimizer.lr = 1e-3;
  b.optimizer.warmup_tokens = 1'000'000;
  b.blocks.pop_back();
  b.sizes = {1};
  b.note = "n";
  std::string text;
  for (const ConfigDifference& d : config_diff(a, b))
    text += d.key + ": " + d.before + " -> " + d.after + "\n";
  EXPECT_EQ(text,
            "optimizer.lr: 0.0003 -> 0.001\n"
            "optimizer.warmup_tokens: 375M -> 1M\n"
            "blocks.1.ffn: moe -> (absent)\n"
            "blocks.1.repeat: 2 -> (absent)\n"
            "blocks.1.experts: 8 -> (absent)\n"
            "sizes: [1, 2] -> [1]\n"
            "note: null -> n\n");
  EXPECT_EQ(config_diff(b, a).size(), 7u);
}

TEST(ConfigSchema, IsDraft7AndComplete) {
  const nlohmann::json schema = nlohmann::json::parse(config_schema<Train>());
  EXPECT_EQ(schema["$schema"], "http://json-schema.org/draft-07/schema#");
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["properties"].size(), 11u);  // the fields and include
  const nlohmann::json& optimizer = schema["properties"]["optimizer"];
  EXPECT_EQ(optimizer["additionalProperties"], false);
  EXPECT_EQ(
      optimizer["properties"]["lr"],
      nlohmann::json::parse(
          R"({"type":"number","exclusiveMinimum":0.0,"description":"peak learning rate","default":0.0003})"));
  const nlohmann::json& beta1 = optimizer["properties"]["adam"]["properties"]["beta1"];
  EXPECT_EQ(beta1["minimum"], 0.0);
  EXPECT_EQ(beta1["exclusiveMaximum"], 1.0);
  const nlohmann::json& tokens = optimizer["properties"]["warmup_tokens"];
  ASSERT_TRUE(tokens["anyOf"].is_array()) << tokens;
  EXPECT_EQ(tokens["anyOf"][0]["type"], "integer");
  EXPECT_EQ(tokens["anyOf"][1]["type"], "string");
  const nlohmann::json& block = schema["properties"]["blocks"]["items"];
  EXPECT_EQ(block["properties"]["ffn"]["enum"], nlohmann::json({"dense", "moe", "residual_moe"}));
  EXPECT_EQ(block["properties"]["ffn"]["default"], "dense");
  EXPECT_EQ(block["properties"]["experts"]["anyOf"][1]["type"], "null");
  EXPECT_EQ(schema["properties"]["sizes"]["items"]["maximum"], 64);
  EXPECT_EQ(schema["properties"]["name"]["minLength"], 1);
  EXPECT_TRUE(schema["properties"]["note"]["default"].is_null());
}

TEST(ConfigHelp, IsAnAlignedTable) {
  EXPECT_EQ(
      config_help<Optimizer>(),
      "key            type                           default  meaning\n"
      "lr             number above 0                 0.0003   peak learning rate\n"
      "warmup_tokens  tokens at least 0              375M     linear warm-up\n"
      "decay_tokens   tokens at least 1              260B     end of the cosine\n"
      "adam                                                   moments\n"
      "adam.beta1     number at least 0 and below 1  0.9      decay of the first moment\n"
      "adam.eps       number above 0                 1e-08    added to the root of the second moment\n");
  const std::string help = config_help<Train>();
  EXPECT_THAT(help, HasSubstr("blocks.N.ffn"));
  EXPECT_THAT(help, HasSubstr("dense | moe | residual_moe"));
  EXPECT_THAT(help, HasSubstr("list of int at least 1 and at most 64"));
}

TEST(ConfigEnum, HasANameForLogs) {
  EXPECT_EQ(enum_text(Ffn::residual_moe), "residual_moe");
  EXPECT_EQ(enum_text(static_cast<Ffn>(9)), "invalid");
}

}  // namespace
}  // namespace ziggurat::config_test
