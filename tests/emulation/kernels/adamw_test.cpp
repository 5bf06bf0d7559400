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
                                     .grad_scale = 0.5,
                                     .step = step};
      kernels::adamw_update<Device::cpu>(args, cpu);
      args.gradient = d_gradient.data();
      args.master = d_master.data();
      args.moment1 = d_m.data();
      args.moment2 = d_v.data();
      args.compute = with_copy ? d_compute.data() : nullptr;
      kernels::adamw_update<Device::cuda>(args, cuda);
      expect_success(cudaDeviceSynchronize());  // before the gradient is freed
    }
    expect_near(d_m.get(), m, "m", 3, 1);
    expect_near(d_v.get(), v, "v", 3, 1);
    expect_near(d_master.get(), master, "master", 3, 1);
    expect_near(d_compute.get(), compute, "compute", 3, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedAdamW,
                         testing::Combine(testing::Values(0, 1, 7, 8, 1024, 1032), testing::Values(0, 1)));

}  // namespace
}  // namespace ziggurat::emulation
