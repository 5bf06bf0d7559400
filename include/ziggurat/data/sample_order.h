// In which order samples are seen: a permutation of [0, n) per epoch that is computed, not stored. It is a
// keyed bijection (a Feistel network on the least even number of bits that holds n, with cycle walking: a
// value outside [0, n) is sent through again; Black & Rogaway 2002), so 300B tokens need no index.
#pragma once

#include <array>
#include <cstdint>

namespace ziggurat {

class SampleOrder {
 public:
  // n >= 1 samples per epoch. Without `shuffle` the order is 0, 1, 2, ... in every epoch.
  SampleOrder(int64_t n, uint64_t seed, bool shuffle = true);

  // The sample seen at global position i >= 0, a function of (n, seed, i) only: position i lies in epoch
  // i / n, and every epoch visits every sample once.
  int64_t at(int64_t i) const;

  int64_t samples_per_epoch() const { return n_; }

 private:
  static constexpr int kRounds = 8;
  uint64_t permute(uint64_t x, const std::array<uint64_t, kRounds>& keys) const;
  std::array<uint64_t, kRounds> keys_of(int64_t epoch) const;

  int64_t n_;
  uint64_t seed_;
  bool shuffle_;
  int half_bits_;
};

}  // namespace ziggurat
