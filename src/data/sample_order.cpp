#include <bit>

#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/sample_order.h>

namespace ziggurat {

SampleOrder::SampleOrder(int64_t n, uint64_t seed, bool shuffle) : n_(n), seed_(seed), shuffle_(shuffle) {
  check(n >= 1, ErrorKind::argument, "[sample order] expected at least one sample, got {}", n);
  const int bits = std::bit_width(static_cast<uint64_t>(n - 1));
  half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
}

std::array<uint64_t, SampleOrder::kRounds> SampleOrder::keys_of(int64_t epoch) const {
  const Philox random(seed_, Purpose::sample_order, static_cast<uint64_t>(epoch));
  std::array<uint64_t, kRounds> keys;
  for (size_t r = 0; r < kRounds; ++r) {
    const Philox::Block b = random.block(r);
    keys[r] = uint64_t{b[0]} << 32 | b[1];
  }
  return keys;
}

uint64_t SampleOrder::permute(uint64_t x, const std::array<uint64_t, kRounds>& keys) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = x >> half_bits_, right = x & mask;
  for (const uint64_t key : keys) {
    uint64_t f = (right + key) * 0xd1342543de82ef95ull;  // any function will do: Feistel makes it a bijection
    f = (f ^ (f >> 32)) * 0x9e3779b97f4a7c15ull;
    const uint64_t next = left ^ ((f >> 32) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t SampleOrder::at(int64_t i) const {
  check(i >= 0, ErrorKind::internal, "[sample order] position {} is negative", i);
  if (!shuffle_) return i % n_;
  const auto keys = keys_of(i / n_);
  auto x = static_cast<uint64_t>(i % n_);
  do {
    x = permute(x, keys);  // at most 4 n values, so fewer than 4 rounds on average
  } while (x >= static_cast<uint64_t>(n_));
  return static_cast<int64_t>(x);
}

}  // namespace ziggurat
