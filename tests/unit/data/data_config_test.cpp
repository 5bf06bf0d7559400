#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/data/data_config.h>

namespace ziggurat {
namespace {

TEST(DataConfig, IsReadFromYaml) {
  DataConfig config;
  parse_config(config,
               "{train: shards/train.json, valid: shards, seed: 7, verify_below: 2B, shuffle: false}");
  EXPECT_EQ(config.train, "shards/train.json");
  EXPECT_EQ(config.valid, "shards");
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.verify_below, 2'000'000'000);
  EXPECT_FALSE(config.shuffle);
  testing::error_of(ErrorKind::config, [&] { parse_config(config, "{seed: -1}"); });
  testing::error_of(ErrorKind::config, [&] { parse_config(config, "{shufle: true}"); });
}

}  // namespace
}  // namespace ziggurat
