#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/swiglu.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the tensors begin)
class EmulatedSwiglu : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {
 protected:
  size_t n() const { return static_cast<size_t>(std::get<0>(GetParam())); }
  size_t shift() const { return static_cast<size_t>(std::get<1>(GetParam())); }
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

template <class T>
void expect_forward(size_t n, size_t shift, Stream& cpu, Stream& cuda) {
  const auto gate = values<T>("gate", n, 3.0), up = values<T>("up", n);
  std::vector<T> want(n);
  kernels::swiglu_forward<Device::cpu>(
      kernels::SwigluArgs<T>{static_cast<int64_t>(n), gate.data(), up.data(), want.data()}, cpu);
  const DeviceTensor<T> d_gate(gate, shift), d_up(up, shift), d_y(std::vector<T>(n), shift);
  kernels::swiglu_forward<Device::cuda>(
      kernels::SwigluArgs<T>{static_cast<int64_t>(n), d_gate.data(), d_up.data(), d_y.data()}, cuda);
  expect_near(d_y.get(), want, "y", 1, 16);
}

TEST_P(EmulatedSwiglu, ForwardEqualsTheCpu) {
  expect_forward<float>(n(), shift(), cpu, cuda);
  expect_forward<bf16>(n(), shift(), cpu, cuda);
}

enum class Gradients { both, gate, up, one_tensor };

template <class T>
void expect_backward(size_t n, size_t shift, Gradients wanted, bool accumulate, Stream& cpu, Stream& cuda) {
  const auto gate = values<T>("gate", n, 3.0), up = values<T>("up", n), dy = values<T>("dy", n);
  auto dgate = values<T>("dgate", n), dup = values<T>("dup", n);
  const DeviceTensor<T> d_gate(gate, shift), d_up(up, shift), d_dy(dy, shift), d_dgate(dgate, shift),
      d_dup(dup, shift);
  kernels::SwigluGradArgs<T> args{static_cast<int64_t>(n),
                                  gate.data(),
                                  up.data(),
                                  dy.data(),
                                  dgate.data(),
                                  accumulate,
                                  dup.data(),
                                  accumulate};
  kernels::SwigluGradArgs<T> device_args{static_cast<int64_t>(n), d_gate.data(), d_up.data(),  d_dy.data(),
                                         d_dgate.data(),          accumulate,    d_dup.data(), accumulate};
  for (const auto& [a, own_dup] :
       {std::pair{&args, args.dgate}, std::pair{&device_args, device_args.dgate}}) {
    if (wanted == Gradients::gate) a->dup = nullptr;
    if (wanted == Gradients::up) a->dgate = nullptr;
    if (wanted == Gradients::one_tensor) {
      a->dup = own_dup;
      a->accumulate_dup = true;
    }
  }
  kernels::swiglu_backward<Device::cpu>(args, cpu);
  kernels::swiglu_backward<Device::cuda>(device_args, cuda);
  // A value near zero may be what is left of a rounded first summand.
  const double magnitude = sizeof(T) == 2 && wanted == Gradients::one_tensor ? 4096 : 64;
  expect_near(d_dgate.get(), dgate, "dgate", 1, magnitude);
  expect_near(d_dup.get(), dup, "dup", 1, magnitude);
}

TEST_P(EmulatedSwiglu, BackwardEqualsTheCpu) {
  for (const Gradients wanted : {Gradients::both, Gradients::gate, Gradients::up, Gradients::one_tensor}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << "gradients " << static_cast<int>(wanted) << ", accumulate " << accumulate);
      expect_backward<float>(n(), shift(), wanted, accumulate, cpu, cuda);
      expect_backward<bf16>(n(), shift(), wanted, accumulate, cpu, cuda);
    }
  }
}

// Around a load of 16 bytes and a block of 256 threads.
INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedSwiglu,
                         testing::Combine(testing::Values(0, 1, 7, 8, 256, 2048, 4104),
                                          testing::Values(0, 1)));

class EmulatedSwigluBytes : public EmulatedTest {};

// The floor of the contract: every value once, by full sectors.
TEST_F(EmulatedSwigluBytes, AreTheFloor) {
  constexpr int64_t kN = 8192;
  const DeviceArray<bf16> gate(values<bf16>("gate", kN)), up(values<bf16>("up", kN)),
      dy(values<bf16>("dy", kN));
  const DeviceArray<bf16> y(kN), dgate(kN), dup(kN);
  Stream stream(Device::cuda);
  kernels::swiglu_forward<Device::cuda>(kernels::SwigluArgs<bf16>{kN, gate.data(), up.data(), y.data()},
                                        stream);
  kernels::swiglu_backward<Device::cuda>(
      kernels::SwigluGradArgs<bf16>{kN, gate.data(), up.data(), dy.data(), dgate.data(), false, dup.data(),
                                    false},
      stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts forward = counts("swiglu_forward_kernel<bf16, 8>");
  EXPECT_EQ(forward.launches, 1);
  EXPECT_EQ(forward.loaded_bytes, 2 * kN * 2);
  EXPECT_EQ(forward.stored_bytes, kN * 2);
  EXPECT_EQ(forward.load_sectors * 32, forward.loaded_bytes);
  EXPECT_EQ(forward.store_sectors * 32, forward.stored_bytes);
  EXPECT_EQ(forward.load_requests, 2 * kN / 8 / 32);
  const KernelCounts backward = counts("swiglu_backward_kernel<bf16, 8>");
  EXPECT_EQ(backward.loaded_bytes, 3 * kN * 2);
  EXPECT_EQ(backward.stored_bytes, 2 * kN * 2);
  EXPECT_EQ(backward.load_sectors * 32, backward.loaded_bytes);
  EXPECT_EQ(backward.store_sectors * 32, backward.stored_bytes);
}

}  // namespace
}  // namespace ziggurat::emulation
