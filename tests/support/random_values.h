#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/core/philox.h>

namespace ziggurat::test {

// n draws of a normal distribution with mean 0 and deviation 1, the same ones for every dtype.
template <class T>
std::vector<T> random_values(int64_t n, uint64_t stream) {
  const Philox rng(stream, Purpose::test);
  std::vector<T> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = T(rng.normal(i));
  return x;
}

}  // namespace ziggurat::test
