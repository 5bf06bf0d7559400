#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/adamw.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the arrays begin)
class EmulatedAdamW : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {};

TEST_P(EmulatedAdamW, UpdatesEqualTheCpus) {
  const auto n = static_cast<size_t>(std::get<0>(GetParam())),
             shift = static_cast<size_t>(std::get<1>(GetParam()));
  Stream cpu(Device::cpu), cuda(Device::cuda);
  const double scale = 0.5;
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  for (const bool with_copy : {true, false}) {
    auto master = values<float>("master", n), m = values<float>("m", n, 0.1), v = values<float>("v", n, 0.01);
    for (float& value : v) value = std::abs(value);
    auto compute = values<bf16>("compute", n);
    const DeviceTensor<float> d_master(master, shift), d_m(m, shift), d_v(v, shift);
    const DeviceTensor<bf16> d_compute(compute, shift);
    for (int64_t step = 1; step <= 3; ++step) {
      const auto gradient = values<float>("gradient " + std::to_string(step), n);
      const DeviceTensor<float> d_gradient(gradient, shift);
      kernels::AdamWArgs<float> args{.n = static_cast<int64_t>(n),
                                     .gradient = gradient.data(),
                                     .master = master.data(),
                                     .moment1 = m.data(),
                                     .moment2 = v.data(),
                                     .compute = with_copy ? compute.data() : nullptr,
                                     .lr = 0.01,
                                     .weight_decay = 0.1,
                                     .grad_scale = &scale,
                                     .step = step};
      kernels::adamw_update<Device::cpu>(args, cpu);
      args.gradient = d_gradient.data();
      args.master = d_master.data();
      args.moment1 = d_m.data();
      args.moment2 = d_v.data();
      args.compute = with_copy ? d_compute.data() : nullptr;
      args.grad_scale = d_scale.data();
      kernels::adamw_update<Device::cuda>(args, cuda);
      expect_success(cudaDeviceSynchronize());  // before the gradient is freed
    }
    expect_near(d_m.get(), m, "m", 3, 1);
    expect_near(d_v.get(), v, "v", 3, 1);
    expect_near(d_master.get(), master, "master", 3, 1);
    expect_near(d_compute.get(), compute, "compute", 3, 1);
  }
}

// Both round with the same draws; where their f32 differ in the last bit, the one or other may be rounded to
// the neighbour.
template <class P, class M>
void expect_rounded_as_on_the_cpu(size_t n, size_t shift, uint64_t first) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  const double scale = 0.5;
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  auto master = values<P>("master", n);
  auto m = values<M>("m", n, 0.1), v = values<M>("v", n, 0.01);
  for (M& value : v) value = M(std::abs(static_cast<float>(value)));
  const auto master_before = master;
  const auto m_before = m, v_before = v;
  const auto gradient = values<float>("gradient", n);
  const DeviceTensor<P> d_master(master, shift);
  const DeviceTensor<M> d_m(m, shift), d_v(v, shift);
  const DeviceTensor<float> d_gradient(gradient, shift);
  kernels::AdamWArgs<float, P, M> args;
  args.n = static_cast<int64_t>(n), args.lr = 0.01, args.weight_decay = 0.1, args.step = 3;
  args.random = Philox(5, Purpose::state_rounding, 6, 3), args.first = first;
  args.gradient = gradient.data(), args.master = master.data(), args.moment1 = m.data(),
  args.moment2 = v.data();
  args.grad_scale = &scale;
  kernels::adamw_update<Device::cpu>(args, cpu);
  args.gradient = d_gradient.data(), args.master = d_master.data();
  args.moment1 = d_m.data(), args.moment2 = d_v.data(), args.grad_scale = d_scale.data();
  kernels::adamw_update<Device::cuda>(args, cuda);
  expect_success(cudaDeviceSynchronize());
  const auto compare = [&]<class T>(const std::vector<T>& got, const std::vector<T>& want,
                                    const std::vector<T>& before) {
    int differ = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double x = static_cast<float>(got[i]), y = static_cast<float>(want[i]);
      // A new value is a difference of terms that are at most the old one and itself.
      const double terms = std::abs(y) + std::abs(static_cast<double>(static_cast<float>(before[i])));
      const double tolerance =
          std::is_same_v<T, bf16> ? 0x1p-7 * std::max(std::abs(y), 1e-3) : 0x1p-21 * std::max(terms, 1e-3);
      EXPECT_NEAR(x, y, tolerance) << i;
      differ += x != y;
    }
    if (std::is_same_v<T, bf16>) {
      EXPECT_LE(differ, static_cast<int>(n) / 100);
    }
  };
  compare(d_master.get(), master, master_before);
  compare(d_m.get(), m, m_before);
  compare(d_v.get(), v, v_before);
}

TEST_P(EmulatedAdamW, RoundsAsTheCpuDoes) {
  const auto n = static_cast<size_t>(std::get<0>(GetParam())),
             shift = static_cast<size_t>(std::get<1>(GetParam()));
  for (const uint64_t first : {0, 7}) {
    expect_rounded_as_on_the_cpu<bf16, bf16>(n, shift, first);
    expect_rounded_as_on_the_cpu<bf16, float>(n, shift, first);
    expect_rounded_as_on_the_cpu<float, bf16>(n, shift, first);
  }
}

TEST_P(EmulatedAdamW, WithoutAFiniteClipFactorNothingIsUpdated) {
  const auto n = static_cast<size_t>(std::get<0>(GetParam())),
             shift = static_cast<size_t>(std::get<1>(GetParam()));
  Stream cuda(Device::cuda);
  const auto master = values<float>("master", n), m = values<float>("m", n, 0.1), v = values<float>("v", n);
  const auto compute = values<bf16>("compute", n);
  const DeviceTensor<float> d_master(master, shift), d_m(m, shift), d_v(v, shift), d_gradient(master, shift);
  const DeviceTensor<bf16> d_compute(compute, shift);
  for (const double scale : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    const DeviceArray<double> d_scale(std::vector<double>{scale});
    kernels::adamw_update<Device::cuda>(kernels::AdamWArgs<float>{.n = static_cast<int64_t>(n),
                                                                  .gradient = d_gradient.data(),
                                                                  .master = d_master.data(),
                                                                  .moment1 = d_m.data(),
                                                                  .moment2 = d_v.data(),
                                                                  .compute = d_compute.data(),
                                                                  .lr = 0.01,
                                                                  .grad_scale = d_scale.data()},
                                        cuda);
    expect_success(cudaDeviceSynchronize());
  }
  EXPECT_EQ(d_master.get(), master);
  EXPECT_EQ(d_m.get(), m);
  EXPECT_EQ(d_v.get(), v);
  expect_near(d_compute.get(), compute, "compute", 0, 0);
}

INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedAdamW,
                         testing::Combine(testing::Values(0, 1, 7, 8, 1024, 1032), testing::Values(0, 1)));

}  // namespace
}  // namespace ziggurat::emulation
