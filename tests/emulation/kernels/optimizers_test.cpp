// What the optimizer's test (tests/emulation/optim) does not reach of its kernels: sizes and addresses that
// cannot be loaded by 16 bytes.
#include <cmath>

#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/adafactor.h>
#include <ziggurat/kernels/lion.h>
#include <ziggurat/kernels/muon.h>
#include <ziggurat/kernels/weight_average.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the arrays begin)
class EmulatedOptimizers : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {
 protected:
  size_t n() const { return static_cast<size_t>(std::get<0>(GetParam())); }
  size_t shift() const { return static_cast<size_t>(std::get<1>(GetParam())); }
  Stream cpu{Device::cpu}, cuda{Device::cuda};
  const double scale = 0.5;
};

TEST_P(EmulatedOptimizers, LionEqualsTheCpus) {
  auto master = values<float>("master", n()), m = values<float>("m", n());
  auto compute = values<bf16>("compute", n());
  const auto gradient = values<float>("gradient", n());
  const DeviceTensor<float> d_master(master, shift()), d_m(m, shift()), d_gradient(gradient, shift());
  const DeviceTensor<bf16> d_compute(compute, shift());
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  kernels::LionArgs<float> args{.n = static_cast<int64_t>(n()),
                                .gradient = gradient.data(),
                                .master = master.data(),
                                .moment = m.data(),
                                .compute = compute.data(),
                                .lr = 0.01,
                                .weight_decay = 0.1,
                                .grad_scale = &scale};
  kernels::lion_update<Device::cpu>(args, cpu);
  args.gradient = d_gradient.data(), args.master = d_master.data(), args.moment = d_m.data();
  args.compute = d_compute.data(), args.grad_scale = d_scale.data();
  kernels::lion_update<Device::cuda>(args, cuda);
  expect_success(cudaDeviceSynchronize());
  expect_near(d_m.get(), m, "m");
  expect_near(d_master.get(), master, "master");
  expect_near(d_compute.get(), compute, "compute");
}

TEST_P(EmulatedOptimizers, TheAverageIsTheCpus) {
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  const auto weight = values<float>("weight", n());
  for (const int64_t step : {1, 2, 1000}) {
    auto average = values<float>("average", n());
    const DeviceTensor<float> d_weight(weight, shift()), d_average(average, shift());
    kernels::WeightAverageArgs<float> args{
        static_cast<int64_t>(n()), weight.data(), average.data(), 0.9, step, &scale};
    kernels::weight_average<Device::cpu>(args, cpu);
    args.weight = d_weight.data(), args.average = d_average.data(), args.grad_scale = d_scale.data();
    kernels::weight_average<Device::cuda>(args, cuda);
    expect_success(cudaDeviceSynchronize());
    expect_near(d_average.get(), average, "average");
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedOptimizers,
                         testing::Combine(testing::Values(0, 1, 7, 8, 1024, 1032), testing::Values(0, 1)));

// Rows around a strip of them, more columns than a block's threads, one of either.
TEST_F(EmulatedTest, AdafactorEqualsTheCpusInAnyShape) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena here("here", 1 << 20), there("there", 1 << 20, Device::cuda);
  const double scale = 0.5;
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {1, 300}, {16, 1}, {17, 257}, {50, 9}, {33, 520}}) {
    for (const bool factored : {true, false}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", factored " << factored);
      const auto n = static_cast<size_t>(rows * cols);
      const auto positive = [](const std::string& name, int64_t size) {
        auto all = values<float>(name, static_cast<size_t>(size));
        for (float& v : all) v = std::abs(v);
        return all;
      };
      auto master = values<float>("master", n);
      auto r = positive("r", rows), c = positive("c", cols), v = positive("v", rows * cols);
      auto compute = values<bf16>("compute", n);
      auto gradient = values<float>("gradient", n);
      gradient[0] = 0;
      const DeviceTensor<float> d_master(master, 1), d_gradient(gradient, 1), d_r(r, 0), d_c(c, 0), d_v(v, 0);
      const DeviceTensor<bf16> d_compute(compute, 1);
      kernels::AdafactorArgs<float> args;
      args.rows = rows, args.cols = cols, args.lr = 0.01, args.weight_decay = 0.1, args.step = 3;
      args.gradient = gradient.data(), args.master = master.data(), args.compute = compute.data();
      (factored ? args.row_squares : args.squares) = factored ? r.data() : v.data();
      if (factored) args.col_squares = c.data();
      args.grad_scale = &scale;
      kernels::adafactor_update<Device::cpu>(args, here, cpu);
      args.gradient = d_gradient.data(), args.master = d_master.data(), args.compute = d_compute.data();
      if (factored) args.row_squares = d_r.data(), args.col_squares = d_c.data();
      if (!factored) args.squares = d_v.data();
      args.grad_scale = d_scale.data();
      kernels::adafactor_update<Device::cuda>(args, there, cuda);
      expect_success(cudaDeviceSynchronize());
      expect_near(d_r.get(), r, "rows");
      expect_near(d_c.get(), c, "columns");
      expect_near(d_v.get(), v, "squares");
      expect_near(d_master.get(), master, "master", 4);
      expect_near(d_compute.get(), compute, "compute", 4);
    }
  }
}

// Wide, tall and square; with and without a look ahead.
TEST_F(EmulatedTest, MuonEqualsTheCpusInAnyShape) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena here("here", 1 << 20), there("there", 1 << 22, Device::cuda);
  const double scale = 0.5;
  const DeviceArray<double> d_scale(std::vector<double>{scale});
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {5, 40}, {40, 5}, {17, 17}}) {
    for (const bool nesterov : {true, false}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols);
      const auto n = static_cast<size_t>(rows * cols);
      auto master = values<float>("master", n), m = values<float>("m", n);
      auto compute = values<bf16>("compute", n);
      const auto gradient = values<float>("gradient", n);
      const DeviceArray<float> d_master(master), d_m(m), d_gradient(gradient);
      const DeviceArray<bf16> d_compute(compute);
      kernels::MuonArgs<float> args{rows, cols, gradient.data(), master.data(), m.data(), compute.data()};
      args.lr = 0.01, args.length = 0.2, args.weight_decay = 0.1, args.nesterov = nesterov;
      args.grad_scale = &scale;
      kernels::muon_update<Device::cpu>(args, here, cpu);
      args.gradient = d_gradient.data(), args.master = d_master.data(), args.moment = d_m.data();
      args.compute = d_compute.data(), args.grad_scale = d_scale.data();
      kernels::muon_update<Device::cuda>(args, there, cuda);
      expect_success(cudaDeviceSynchronize());
      expect_near(d_m.get(), m, "m");
      // Five iterations enlarge the smallest singular values, and their roundings, by up to 3.4 each.
      expect_near(d_master.get(), master, "master", 1 << 10);
      expect_near(d_compute.get(), compute, "compute", 1 << 10);
    }
  }
}

}  // namespace
}  // namespace ziggurat::emulation
