// Who holds which block of a nn::KvCache, and which of them hold a text's beginning that is known already.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ziggurat::infer {

// Blocks are held by any number of sequences. One that nobody holds any more keeps what it has, and can be
// found by it, until it is taken for something else: the longest unused first. All work is O(1) but for a
// block's tokens, and nothing is allocated.
class BlockPool {
 public:
  // What a block holds: the keys and values of its tokens after those of all blocks before it. The number
  // stands for all of these tokens, exactly.
  using Content = uint64_t;
  static constexpr Content kNothing = 0;  // before the first block

  // `block`: tokens each.
  BlockPool(int64_t blocks, int64_t block);

  int64_t blocks() const { return blocks_; }
  int64_t block() const { return block_; }
  int64_t available() const { return available_; }  // blocks that nobody holds

  // A block for new tokens, held once. Throws Error(internal) where none is available.
  int32_t take();
  void hold(int32_t block);
  void release(int32_t block);
  bool is_shared(int32_t block) const { return state(block).holders > 1; }

  // The block holds `tokens` [block()] after `before`, and will not change while anybody can find it.
  Content publish(int32_t block, Content before, std::span<const int32_t> tokens);

  struct Found {
    int32_t block;
    Content content;
  };
  // The published block with these tokens, which it does not hold for the caller.
  std::optional<Found> find(Content before, std::span<const int32_t> tokens) const;

 private:
  struct State {
    int32_t holders = 0;
    int32_t previous = -1, next = -1;  // among those that nobody holds, the next to be taken first
    int32_t same_bucket = -1;          // the next published block of its bucket
    Content before = kNothing, content = kNothing;  // kNothing: not published
  };
  State& state(int32_t block) { return states_.at(static_cast<size_t>(block)); }
  const State& state(int32_t block) const { return states_.at(static_cast<size_t>(block)); }
  std::span<const int32_t> tokens_of(int32_t block) const;
  int32_t& bucket_of(Content before, std::span<const int32_t> tokens);
  void forget(int32_t block);
  void unlink(int32_t block);

  int64_t blocks_, block_, available_;
  std::vector<State> states_;
  std::vector<int32_t> tokens_;   // [blocks, block]
  std::vector<int32_t> buckets_;  // the first published block of each; -1: none
  int32_t first_ = -1, last_ = -1;
  Content contents_ = kNothing;
};

}  // namespace ziggurat::infer
