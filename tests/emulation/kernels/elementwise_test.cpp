#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/elementwise.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the tensors begin)
class EmulatedElementwise : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {};

template <class T>
void expect_sums(size_t n, size_t shift) {
  Stream cuda(Device::cuda);
  const auto a = values<T>("a", n), b = values<T>("b", n);
  std::vector<T> want;
  for (size_t i = 0; i < n; ++i) want.push_back(T(static_cast<float>(to_double(a[i]) + to_double(b[i]))));
  const auto same = [&](const std::vector<T>& got) {
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(to_double(got[i]), to_double(want[i])) << "element " << i;
  };
  const DeviceTensor<T> d_a(a, shift), d_b(b, shift), d_y(std::vector<T>(n), shift);
  kernels::add<Device::cuda>(static_cast<const T*>(d_a.data()), static_cast<const T*>(d_b.data()), d_y.data(),
                             static_cast<int64_t>(n), cuda);
  same(d_y.get());
  kernels::accumulate<Device::cuda>(static_cast<const T*>(d_a.data()), d_b.data(), static_cast<int64_t>(n),
                                    cuda);
  same(d_b.get());
}

TEST_P(EmulatedElementwise, SumsAreRoundedOnce) {
  const auto [n, shift] = GetParam();
  expect_sums<float>(static_cast<size_t>(n), static_cast<size_t>(shift));
  expect_sums<bf16>(static_cast<size_t>(n), static_cast<size_t>(shift));
}

INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedElementwise,
                         testing::Combine(testing::Values(0, 1, 7, 8, 1024, 2056), testing::Values(0, 1)));

}  // namespace
}  // namespace ziggurat::emulation
