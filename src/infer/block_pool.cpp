#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/infer/block_pool.h>

namespace ziggurat::infer {

namespace {

uint64_t mixed(uint64_t x) {  // splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

BlockPool::BlockPool(int64_t blocks, int64_t block)
    : blocks_(blocks),
      block_(block),
      available_(blocks),
      states_(static_cast<size_t>(blocks)),
      tokens_(static_cast<size_t>(blocks * block)),
      buckets_(static_cast<size_t>(blocks), -1) {
  check(blocks > 0 && block > 0, ErrorKind::argument,
        "[block pool] expected at least one block of one token, got {} of {}", blocks, block);
  first_ = 0, last_ = static_cast<int32_t>(blocks) - 1;
  for (int32_t b = 0; b < static_cast<int32_t>(blocks); ++b) {
    state(b).previous = b - 1;
    state(b).next = b == last_ ? -1 : b + 1;
  }
}

int32_t BlockPool::take() {
  check(first_ >= 0, ErrorKind::internal, "[block pool] all {} blocks are held", blocks_);
  const int32_t block = first_;
  hold(block);
  forget(block);
  return block;
}

void BlockPool::hold(int32_t block) {
  if (state(block).holders++ > 0) return;
  unlink(block);
  --available_;
}

void BlockPool::release(int32_t block) {
  State& s = state(block);
  check(s.holders > 0, ErrorKind::internal, "[block pool] block {} is held by nobody", block);
  if (--s.holders > 0) return;
  ++available_;
  if (s.content == kNothing) {  // of no use to anybody: the next to be taken
    s.previous = -1, s.next = first_;
    (first_ < 0 ? last_ : state(first_).previous) = block;
    first_ = block;
  } else {
    s.previous = last_, s.next = -1;
    (last_ < 0 ? first_ : state(last_).next) = block;
    last_ = block;
  }
}

BlockPool::Content BlockPool::publish(int32_t block, Content before, std::span<const int32_t> tokens) {
  if (const std::optional<Found> known = find(before, tokens)) return known->content;
  State& s = state(block);
  check(s.holders > 0 && s.content == kNothing && std::ssize(tokens) == block_, ErrorKind::internal,
        "[block pool] block {} cannot be published: it has {} holders and {} tokens", block, s.holders,
        tokens.size());
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + block * block_);
  int32_t& bucket = bucket_of(before, tokens);
  s.before = before, s.content = ++contents_, s.same_bucket = bucket;
  bucket = block;
  return s.content;
}

std::optional<BlockPool::Found> BlockPool::find(Content before, std::span<const int32_t> tokens) const {
  for (int32_t b = const_cast<BlockPool*>(this)->bucket_of(before, tokens); b >= 0;
       b = state(b).same_bucket) {
    if (state(b).before == before && std::ranges::equal(tokens_of(b), tokens))
      return Found{b, state(b).content};
  }
  return std::nullopt;
}

std::span<const int32_t> BlockPool::tokens_of(int32_t block) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block * block_), static_cast<size_t>(block_));
}

int32_t& BlockPool::bucket_of(Content before, std::span<const int32_t> tokens) {
  uint64_t hash = mixed(before + 0x9e3779b97f4a7c15u);
  for (const int32_t token : tokens) hash = mixed(hash ^ static_cast<uint32_t>(token));
  return buckets_[hash % buckets_.size()];
}

void BlockPool::forget(int32_t block) {
  State& s = state(block);
  if (s.content == kNothing) return;
  int32_t* link = &bucket_of(s.before, tokens_of(block));
  while (*link != block) link = &state(*link).same_bucket;
  *link = s.same_bucket;
  s.content = kNothing;
}

void BlockPool::unlink(int32_t block) {
  const State& s = state(block);
  (s.previous < 0 ? first_ : state(s.previous).next) = s.next;
  (s.next < 0 ? last_ : state(s.next).previous) = s.previous;
}

}  // namespace ziggurat::infer
