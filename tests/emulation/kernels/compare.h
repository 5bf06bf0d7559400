// A CUDA kernel on the emulated device against the CPU's on the same values.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/emulation/emulated_test.h"
#include <ziggurat/core/bf16.h>

namespace ziggurat::emulation {

inline double to_double(float value) { return value; }
inline double to_double(bf16 value) { return static_cast<float>(value); }

// Values from N(0, scale), a function of (name, n).
template <class T>
std::vector<T> values(const std::string& name, size_t n, double scale = 1.0) {
  std::seed_seq seed(name.begin(), name.end());
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<T> result(n);
  for (T& value : result) value = T(static_cast<float>(normal(random)));
  return result;
}

// Half a unit in the last place of a value near 1.
template <class T>
constexpr double kRounding = sizeof(T) == 2 ? 0x1p-9 : 0x1p-24;

// Both round once to T, after sums of `length` terms up to `magnitude` in fp32: the results differ by the
// last place of T, relative to the value, and by a random walk of fp32's roundings.
template <class T>
void expect_near(const std::vector<T>& got, const std::vector<T>& want, const std::string& what,
                 double length = 1, double magnitude = 1) {
  ASSERT_EQ(got.size(), want.size());
  const double sums = 16 * 0x1p-24 * std::sqrt(length) * magnitude;
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = to_double(got[i]), w = to_double(want[i]);
    ASSERT_LE(std::abs(g - w), 2 * kRounding<T> * std::abs(w) + sums)
        << what << ": element " << i << " is " << g << ", on the CPU " << w;
  }
}

// Device memory where a tensor begins `shift` elements behind an address that vectors can be loaded from.
template <class T>
class DeviceTensor {
 public:
  DeviceTensor(const std::vector<T>& values, size_t shift)
      : shift_(shift), array_([&] {
          std::vector<T> shifted(shift);
          shifted.insert(shifted.end(), values.begin(), values.end());
          return shifted;
        }()) {}
  T* data() const { return array_.data() + shift_; }
  std::vector<T> get() const {
    const std::vector<T> all = array_.get();
    return {all.begin() + static_cast<std::ptrdiff_t>(shift_), all.end()};
  }

 private:
  size_t shift_;
  DeviceArray<T> array_;
};

}  // namespace ziggurat::emulation
