#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/router_logits.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the tensors begin)
class EmulatedRouterInput : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& want, const char* what) {
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(to_double(got[i]), to_double(want[i])) << what << ", element " << i;
  }
}

template <class T>
void expect_same_bits(size_t n, size_t shift, double eps, Stream& cpu, Stream& cuda) {
  const uint64_t moment = 7;
  const DeviceArray<uint64_t> d_moment(std::vector<uint64_t>{moment});
  const LatePhilox rng(3, Purpose::router_jitter, 5, &moment),
      d_rng(3, Purpose::router_jitter, 5, d_moment.data());
  const auto x = values<T>("x", n);
  const auto dy = values<float>("dy", n);
  auto y = values<float>("y", n);
  const DeviceTensor<T> d_x(x, shift);
  const DeviceTensor<float> d_dy(dy, shift), d_y(y, shift);
  const auto count = static_cast<int64_t>(n);
  kernels::router_input_forward<Device::cpu>(kernels::RouterInputArgs<T>{count, eps, rng, x.data(), y.data()},
                                             cpu);
  kernels::router_input_forward<Device::cuda>(
      kernels::RouterInputArgs<T>{count, eps, d_rng, d_x.data(), d_y.data()}, cuda);
  expect_equal(d_y.get(), y, "y");
  for (const bool accumulate : {false, true}) {
    auto dx = values<T>("dx", n);
    const DeviceTensor<T> d_dx(dx, shift);
    kernels::router_input_backward<Device::cpu>(
        kernels::RouterInputGradArgs<T>{count, eps, rng, dy.data(), dx.data(), accumulate}, cpu);
    kernels::router_input_backward<Device::cuda>(
        kernels::RouterInputGradArgs<T>{count, eps, d_rng, d_dy.data(), d_dx.data(), accumulate}, cuda);
    expect_equal(d_dx.get(), dx, accumulate ? "dx +=" : "dx");
  }
}

TEST_P(EmulatedRouterInput, BitsAreTheCpus) {
  const auto [n, shift] = GetParam();
  for (const double eps : {0.0, 0.01, 0.5}) {
    SCOPED_TRACE(eps);
    expect_same_bits<float>(static_cast<size_t>(n), static_cast<size_t>(shift), eps, cpu, cuda);
    expect_same_bits<bf16>(static_cast<size_t>(n), static_cast<size_t>(shift), eps, cpu, cuda);
  }
}

// Around a block of Philox, a load of 16 bytes and a block of 256 threads.
INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedRouterInput,
                         testing::Combine(testing::Values(0, 1, 3, 8, 1029, 2056), testing::Values(0, 1)));

class EmulatedRouterInputBytes : public EmulatedTest {};

TEST_F(EmulatedRouterInputBytes, AreTheFloor) {
  constexpr int64_t kN = 4096;
  const DeviceArray<bf16> x(values<bf16>("x", kN)), dx(values<bf16>("dx", kN));
  const DeviceArray<float> y(kN), dy(values<float>("dy", kN));
  const DeviceArray<uint64_t> moment(std::vector<uint64_t>{0});
  const LatePhilox rng(1, Purpose::router_jitter, 0, moment.data());
  Stream stream(Device::cuda);
  kernels::router_input_forward<Device::cuda>(
      kernels::RouterInputArgs<bf16>{kN, 0.01, rng, x.data(), y.data()}, stream);
  kernels::router_input_backward<Device::cuda>(
      kernels::RouterInputGradArgs<bf16>{kN, 0.01, rng, dy.data(), dx.data(), true}, stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts forward = counts("router_input_forward_kernel<bf16, 8>"),
                     backward = counts("router_input_backward_kernel<bf16, 8>");
  EXPECT_EQ(forward.launches, 1);
  constexpr int64_t kMoments = kN;  // 8 bytes a thread, a sector a warp
  EXPECT_EQ(forward.loaded_bytes, 2 * kN + kMoments);
  EXPECT_EQ(forward.stored_bytes, 4 * kN);
  EXPECT_EQ(forward.load_sectors * 32, 2 * kN + kMoments / 8);
  EXPECT_EQ(backward.launches, 1);
  EXPECT_EQ(backward.loaded_bytes, (4 + 2) * kN + kMoments);
  EXPECT_EQ(backward.stored_bytes, 2 * kN);
  EXPECT_EQ(backward.store_sectors * 32, backward.stored_bytes);
}

}  // namespace
}  // namespace ziggurat::emulation
