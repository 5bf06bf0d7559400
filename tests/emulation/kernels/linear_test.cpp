// Which passes a linear layer takes beside its products, and what they read and write.
#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/linear.h>

namespace ziggurat::emulation {
namespace {

using kernels::Activation;

class EmulatedLinear : public EmulatedTest {
 protected:
  // All launches but the library's.
  int64_t passes() const {
    int64_t sum = 0;
    for (const auto& [name, did] : all_counts()) {
      if (!name.starts_with("matmul<")) sum += did.launches;
    }
    return sum;
  }
};

// Forward of 4 rows from 8 to `out` columns.
template <class T>
void run_forward(Activation activation, bool with_bias, int64_t out,
                 Reproducible reproducible = Reproducible::layout) {
  const auto columns = static_cast<size_t>(out);
  const DeviceArray<T> x(values<T>("x", 32)), w(values<T>("w", 8 * columns)), z(4 * columns), y(4 * columns);
  const DeviceArray<float> bias(values<float>("bias", columns));
  Arena workspace("workspace", 1 << 20, Device::cuda);
  Stream stream(Device::cuda, reproducible);
  kernels::linear_forward<Device::cuda>(
      kernels::LinearArgs<T>{4, 8, out, x.data(), w.data(), 0, with_bias ? bias.data() : nullptr, activation,
                             z.data(), y.data()},
      workspace, stream);
  expect_success(cudaDeviceSynchronize());
}

TEST_F(EmulatedLinear, EpiloguesThatTheLibraryHasAreNoPassesOfTheirOwn) {
  run_forward<float>(Activation::none, true, 16);
  run_forward<float>(Activation::gelu_tanh, true, 16);
  run_forward<float>(Activation::gelu_tanh, false, 16);
  run_forward<bf16>(Activation::gelu_tanh, false, 16);
  run_forward<bf16>(Activation::none, false, 16);
  EXPECT_EQ(counts("matmul<float, float>").launches, 3);
  EXPECT_EQ(counts("matmul<bf16, bf16>").launches, 2);
  EXPECT_EQ(passes(), 0);
}

// The exact gelu; a bias in f32 beside bf16; z without rows at multiples of 16 bytes; tiles.
TEST_F(EmulatedLinear, WhatItHasNotIsOnePass) {
  run_forward<float>(Activation::gelu_erf, true, 16);
  EXPECT_EQ(passes(), 1);
  run_forward<bf16>(Activation::gelu_tanh, true, 16);
  EXPECT_EQ(passes(), 2);
  run_forward<float>(Activation::gelu_tanh, true, 15);
  EXPECT_EQ(passes(), 3);
  run_forward<float>(Activation::gelu_tanh, true, 16, Reproducible::strict);
  EXPECT_EQ(passes(), 4);
}

// dweight lies in memory that holds anything, or is added to; dx too.
template <class T>
void expect_backward(Activation activation, bool accumulate) {
  constexpr int64_t kRows = 33, kIn = 24, kOut = 40;
  const auto x = values<T>("x", kRows * kIn), w = values<T>("w", kOut * kIn),
             z = values<T>("z", kRows * kOut), dy = values<T>("dy", kRows * kOut);
  const float nan = std::nanf("");
  auto dx = accumulate ? values<T>("dx", kRows * kIn) : std::vector<T>(kRows * kIn, T(nan));
  auto dw = accumulate ? values<float>("dw", kOut * kIn) : std::vector<float>(kOut * kIn, nan);
  auto db = values<float>("db", kOut);
  const DeviceArray<T> d_x(x), d_w(w), d_z(z), d_dy(dy), d_dx(dx);
  const DeviceArray<float> d_dw(dw), d_db(db);
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  Stream cpu(Device::cpu), cuda(Device::cuda);
  const auto args = [&](const T* xs, const T* ws, const T* zs, const T* dys, T* dxs, float* dws, float* dbs) {
    return kernels::LinearGradArgs<T>{
        {kRows, kIn, kOut, xs, ws, 0, nullptr, activation, const_cast<T*>(zs), nullptr},
        dys,
        dxs,
        accumulate,
        dws,
        accumulate,
        dbs};
  };
  kernels::linear_backward<Device::cpu>(
      args(x.data(), w.data(), z.data(), dy.data(), dx.data(), dw.data(), db.data()), host, cpu);
  kernels::linear_backward<Device::cuda>(
      args(d_x.data(), d_w.data(), d_z.data(), d_dy.data(), d_dx.data(), d_dw.data(), d_db.data()), device,
      cuda);
  expect_near(d_dx.get(), dx, "dx", kOut, 16 + kLastPlace<T> * 0x1p20);
  expect_near(d_dw.get(), dw, "dweight", kRows, 16 + kLastPlace<T> * 0x1p20);
  expect_near(d_db.get(), db, "dbias", kRows, 16 + kLastPlace<T> * 0x1p20);
}

TEST_F(EmulatedLinear, BackwardEqualsTheCpu) {
  for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << "activation " << static_cast<int>(activation) << ", accumulate " << accumulate);
      expect_backward<float>(activation, accumulate);
      expect_backward<bf16>(activation, accumulate);
    }
  }
}

}  // namespace
}  // namespace ziggurat::emulation
