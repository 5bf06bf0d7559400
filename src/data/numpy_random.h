// numpy's RandomState as far as shuffling needs it: MT19937 (Matsumoto & Nishimura 1998) seeded by
// init_genrand, and Fisher-Yates from the end with bounded numbers by masked rejection. The same numbers as
// numpy.random.RandomState(seed), whose stream is frozen by numpy's compatibility promise.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace ziggurat {

class NumpyRandomState {
 public:
  explicit NumpyRandomState(uint32_t seed);

  uint32_t next();                   // 32 random bits
  uint32_t up_to(uint32_t highest);  // in [0, highest]

  // numpy's shuffle(x) of a list of fewer than 2^32 elements.
  template <class T>
  void shuffle(std::span<T> x) {
    for (size_t i = x.size(); i-- > 1;) std::swap(x[i], x[up_to(static_cast<uint32_t>(i))]);
  }

 private:
  static constexpr size_t kSize = 624;
  void refill();

  std::array<uint32_t, kSize> state_;
  size_t next_ = kSize;
};

}  // namespace ziggurat
