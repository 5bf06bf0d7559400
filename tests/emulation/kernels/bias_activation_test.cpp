#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/bias_activation.h>

namespace ziggurat::emulation {
namespace {

using kernels::Activation;

struct MatrixCase {
  int64_t rows, cols;
  size_t shift;  // elements from an address that vectors can be loaded from
};
void PrintTo(const MatrixCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols << "+" << c.shift; }

class EmulatedBiasActivation : public EmulatedTest, public testing::WithParamInterface<MatrixCase> {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

template <class T>
void expect_forward(const MatrixCase& c, Activation activation, bool with_bias, Stream& cpu, Stream& cuda) {
  const auto n = static_cast<size_t>(c.rows * c.cols);
  auto z = values<T>("z", n, 3.0), y = values<T>("y", n);
  const auto bias = values<float>("bias", static_cast<size_t>(c.cols));
  const DeviceTensor<T> d_z(z, c.shift), d_y(y, c.shift);
  const DeviceTensor<float> d_bias(bias, c.shift);
  kernels::bias_activation_forward<Device::cpu>(
      kernels::BiasActivationArgs<T>{activation, c.rows, c.cols, z.data(), with_bias ? bias.data() : nullptr,
                                     y.data()},
      cpu);
  kernels::bias_activation_forward<Device::cuda>(
      kernels::BiasActivationArgs<T>{activation, c.rows, c.cols, d_z.data(),
                                     with_bias ? d_bias.data() : nullptr, d_y.data()},
      cuda);
  expect_near(d_z.get(), z, "z", 1, 0);
  expect_near(d_y.get(), y, "y", 1, 16);
}

template <class T>
void expect_backward(const MatrixCase& c, Activation activation, bool with_bias, Stream& cpu, Stream& cuda) {
  const auto n = static_cast<size_t>(c.rows * c.cols);
  const auto z = values<T>("z", n, 3.0), dy = values<T>("dy", n);
  auto dz = values<T>("dz", n);
  auto dbias = values<float>("dbias", static_cast<size_t>(c.cols));
  const DeviceTensor<T> d_z(z, c.shift), d_dy(dy, c.shift), d_dz(dz, c.shift);
  const DeviceTensor<float> d_dbias(dbias, c.shift);
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  kernels::bias_activation_backward<Device::cpu>(
      kernels::BiasActivationGradArgs<T>{activation, c.rows, c.cols, z.data(), dy.data(), dz.data(),
                                         with_bias ? dbias.data() : nullptr},
      host, cpu);
  kernels::bias_activation_backward<Device::cuda>(
      kernels::BiasActivationGradArgs<T>{activation, c.rows, c.cols, d_z.data(), d_dy.data(), d_dz.data(),
                                         with_bias ? d_dbias.data() : nullptr},
      device, cuda);
  expect_near(d_dz.get(), dz, "dz", 1, 16);
  // Summands may have been rounded to neighbours.
  const auto rows = static_cast<double>(c.rows);
  expect_near(d_dbias.get(), dbias, "dbias", rows, 8 + kLastPlace<T> * 0x1p20);
}

TEST_P(EmulatedBiasActivation, EqualsTheCpu) {
  for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
    for (const bool with_bias : {true, false}) {
      SCOPED_TRACE(testing::Message()
                   << "activation " << static_cast<int>(activation) << ", bias " << with_bias);
      expect_forward<float>(GetParam(), activation, with_bias, cpu, cuda);
      expect_forward<bf16>(GetParam(), activation, with_bias, cpu, cuda);
      expect_backward<float>(GetParam(), activation, with_bias, cpu, cuda);
      expect_backward<bf16>(GetParam(), activation, with_bias, cpu, cuda);
    }
  }
}

// Around a load of 16 bytes, a block of rows and one of columns.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedBiasActivation,
                         testing::Values(MatrixCase{0, 8, 0}, MatrixCase{3, 0, 0}, MatrixCase{1, 1, 0},
                                         MatrixCase{5, 7, 0}, MatrixCase{33, 8, 0}, MatrixCase{70, 16, 1},
                                         MatrixCase{6, 1040, 0}));

class EmulatedBiasActivationBytes : public EmulatedTest {};

// The floor of the contract, and the bias and its gradient beside it.
TEST_F(EmulatedBiasActivationBytes, AreTheFloor) {
  constexpr int64_t kRows = 64, kCols = 1024, kN = kRows * kCols;
  const DeviceArray<bf16> z(values<bf16>("z", kN)), dy(values<bf16>("dy", kN));
  const DeviceArray<float> bias(values<float>("bias", kCols)), dbias{std::vector<float>(kCols)};
  const DeviceArray<bf16> y(kN), dz(kN);
  Stream stream(Device::cuda);
  Arena workspace("workspace", 1 << 20, Device::cuda);
  kernels::bias_activation_forward<Device::cuda>(
      kernels::BiasActivationArgs<bf16>{Activation::gelu_tanh, kRows, kCols, z.data(), bias.data(), y.data()},
      stream);
  kernels::bias_activation_backward<Device::cuda>(
      kernels::BiasActivationGradArgs<bf16>{Activation::gelu_tanh, kRows, kCols, z.data(), dy.data(),
                                            dz.data(), dbias.data()},
      workspace, stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts forward = counts("bias_activation_forward_kernel<kernels::GeluTanh, bf16, 8>");
  EXPECT_EQ(forward.launches, 1);
  EXPECT_EQ(forward.loaded_bytes, kN * 2 + kRows / 8 * kCols * 4);
  EXPECT_EQ(forward.stored_bytes, 2 * kN * 2);
  EXPECT_EQ(forward.store_sectors * 32, forward.stored_bytes);
  const KernelCounts backward = counts("bias_activation_backward_kernel<kernels::GeluTanh, bf16, 8>");
  EXPECT_EQ(backward.launches, 1);
  EXPECT_EQ(backward.loaded_bytes, 2 * kN * 2);
  EXPECT_EQ(backward.stored_bytes, kN * 2 + kRows / 32 * kCols * 4);
  EXPECT_EQ(backward.load_sectors * 32, backward.loaded_bytes);
}

}  // namespace
}  // namespace ziggurat::emulation
