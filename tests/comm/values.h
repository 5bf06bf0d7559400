// Values for tests of collectives that say where they came from (rank and element), so that a failure
// explains itself.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat::contract {

template <class T>
struct Buffer {
  std::vector<T> values;
  Tensor tensor;
  Buffer(Shape shape, T fill = T{}) : values(static_cast<size_t>(shape.numel()), fill) {
    tensor = Tensor(values.data(), dtype_of<T>(), shape);
  }
};

// A value that names its rank and element; exact in every dtype for rank < 8, element < 16.
template <class T>
T tagged(int64_t rank, int64_t element) {
  return static_cast<T>(static_cast<float>(rank * 16 + element % 16));
}

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// Random values of very different magnitude: another order of additions gives other bits.
template <class T>
T random_value(int rank, int64_t element) {
  const Philox random(7, Purpose::test, static_cast<uint64_t>(rank));
  if constexpr (std::is_same_v<T, int32_t>)
    return static_cast<T>(random.bits(static_cast<uint64_t>(element)) >> 8);
  const uint32_t exponent = random.bits(static_cast<uint64_t>(element) + 1000000) % 16;
  return static_cast<T>(random.normal(static_cast<uint64_t>(element)) *
                        std::ldexp(1.0, static_cast<int>(exponent)));
}

// The tree of the contract, over ranks [begin, end).
template <class T>
T local_tree(int begin, int end, int64_t element) {
  if (end - begin == 1) return random_value<T>(begin, element);
  const int middle = (begin + end) / 2;
  return local_tree<T>(begin, middle, element) + local_tree<T>(middle, end, element);
}

template <class F>
std::string message_of(ErrorKind kind, const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return "";
}

}  // namespace ziggurat::contract
