#include <map>
#include <random>

#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/infer/block_pool.h>

namespace ziggurat::infer {
namespace {

using Tokens = std::vector<int32_t>;

TEST(BlockPool, ABlockIsKnownByAllTokensUpToItsLast) {
  BlockPool pool(4, 2);
  const int32_t a = pool.take(), b = pool.take(), c = pool.take();
  const auto content_a = pool.publish(a, BlockPool::kNothing, Tokens{1, 2});
  const auto content_b = pool.publish(b, content_a, Tokens{1, 2});
  EXPECT_NE(content_a, content_b);
  EXPECT_EQ(pool.find(BlockPool::kNothing, Tokens{1, 2})->block, a);
  EXPECT_EQ(pool.find(content_a, Tokens{1, 2})->block, b);
  EXPECT_FALSE(pool.find(content_b, Tokens{1, 2}));
  EXPECT_FALSE(pool.find(BlockPool::kNothing, Tokens{2, 1}));
  EXPECT_EQ(pool.publish(c, BlockPool::kNothing, Tokens{1, 2}), content_a) << "the same content once more";
  EXPECT_EQ(pool.find(BlockPool::kNothing, Tokens{1, 2})->block, a);
}

TEST(BlockPool, WhatNobodyHoldsIsFoundUntilItIsTaken) {
  BlockPool pool(3, 1);
  const int32_t a = pool.take(), b = pool.take();
  pool.publish(a, BlockPool::kNothing, Tokens{1});
  pool.publish(b, BlockPool::kNothing, Tokens{2});
  pool.release(a);
  pool.release(b);
  EXPECT_EQ(pool.available(), 3);
  pool.hold(pool.find(BlockPool::kNothing, Tokens{1})->block);  // a is in use again
  EXPECT_EQ(pool.available(), 2);
  const int32_t fresh = pool.take();
  EXPECT_TRUE(fresh != a && fresh != b) << "a block without content is taken first";
  EXPECT_EQ(pool.take(), b);
  EXPECT_FALSE(pool.find(BlockPool::kNothing, Tokens{2}));
  EXPECT_TRUE(pool.find(BlockPool::kNothing, Tokens{1}));
  ziggurat::testing::error_of(ErrorKind::internal, [&] { pool.take(); });
  pool.release(a);
  ziggurat::testing::error_of(ErrorKind::internal, [&] { pool.release(a); });
}

TEST(BlockPool, TakesTheLongestUnusedFirst) {
  BlockPool pool(3, 1);
  int32_t blocks[3];
  for (int32_t i = 0; i < 3; ++i) {
    blocks[i] = pool.take();
    pool.publish(blocks[i], BlockPool::kNothing, Tokens{i});
  }
  for (const int i : {1, 0, 2}) pool.release(blocks[i]);
  for (const int i : {1, 0, 2}) EXPECT_EQ(pool.take(), blocks[i]);
}

// Random use beside a plain model of what must hold.
TEST(BlockPool, AnyOrderOfUse) {
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  BlockPool pool(12, 2);
  std::map<int32_t, int> holders;
  std::map<int32_t, std::pair<BlockPool::Content, Tokens>> published;
  std::vector<BlockPool::Content> contents = {BlockPool::kNothing};
  for (int i = 0; i < 20'000; ++i) {
    const auto held = [&] {
      auto block = holders.begin();
      std::advance(block, static_cast<int64_t>(below(holders.size())));
      return block;
    };
    switch (below(4)) {
      case 0:
        if (pool.available() > 0) {
          const int32_t block = pool.take();
          ASSERT_FALSE(holders.contains(block));
          holders[block] = 1;
          published.erase(block);
        }
        break;
      case 1:
        if (!holders.empty()) {
          const auto block = held();
          pool.release(block->first);
          if (--block->second == 0) holders.erase(block);
        }
        break;
      case 2:
        if (!holders.empty()) {
          const auto block = held();
          const auto before = contents[below(contents.size())];
          const Tokens tokens = {static_cast<int32_t>(below(3)), static_cast<int32_t>(below(3))};
          if (published.contains(block->first)) break;
          const bool known = pool.find(before, tokens).has_value();
          const auto content = pool.publish(block->first, before, tokens);
          if (!known) published[block->first] = {before, tokens}, contents.push_back(content);
        }
        break;
      default:
        if (!published.empty()) {
          auto block = published.begin();
          std::advance(block, static_cast<int64_t>(below(published.size())));
          const auto found = pool.find(block->second.first, block->second.second);
          ASSERT_TRUE(found.has_value());
          ASSERT_EQ(found->block, block->first);
          pool.hold(found->block);
          ++holders[found->block];
        }
    }
    ASSERT_EQ(pool.available(), 12 - std::ssize(holders));
    for (const auto& [block, count] : holders) ASSERT_EQ(pool.is_shared(block), count > 1);
  }
}

}  // namespace
}  // namespace ziggurat::infer
