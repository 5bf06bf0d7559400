#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/label_smoothing.h>

namespace ziggurat::emulation {
namespace {

struct SmoothingCase {
  int64_t rows, cols, vocabulary;
  bool accumulate = false, learns = true;
  int64_t elsewhere = 0;  // words of other ranks
};
void PrintTo(const SmoothingCase& c, std::ostream* os) {
  *os << c.rows << " x " << c.cols << " of " << c.vocabulary << (c.accumulate ? " added to" : "")
      << (c.learns ? "" : " in evaluation") << (c.elsewhere > 0 ? " and others" : "");
}

class EmulatedLabelSmoothing : public EmulatedTest, public testing::WithParamInterface<SmoothingCase> {};

template <class T>
void expect_equals_cpu(const SmoothingCase& c) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena here("here", 1 << 20), there("there", 1 << 20, Device::cuda);
  const auto n = static_cast<size_t>(c.rows * c.cols), of_head = static_cast<size_t>(c.vocabulary * c.cols);
  const auto x = values<T>("x", n), weight = values<T>("weight", of_head);
  auto dx = values<T>("dx", n);
  auto dweight = values<float>("dweight", of_head);
  const int64_t words = c.vocabulary + c.elsewhere;
  std::vector<int32_t> targets, own;  // some are nobody's, many are each other's
  for (int64_t i = 0; i < c.rows; ++i) {
    const bool is_own = c.vocabulary > 0 && (c.elsewhere == 0 || i % 3 > 0);
    const auto target = static_cast<int32_t>(is_own ? i * 3 % std::min<int64_t>(c.vocabulary, 7) : words - 1);
    targets.push_back(i % 5 == 4 ? -1 : target);
    own.push_back(i % 5 == 4 || !is_own ? -1 : target);
  }
  std::vector<double> sum(1), scale = {0.25};
  const DeviceTensor<T> d_x(x, 0), d_weight(weight, 0), d_dx(dx, 0);
  const DeviceTensor<float> d_dweight(dweight, 0);
  const DeviceArray<int32_t> d_targets(targets), d_own(own);
  const DeviceArray<double> d_sum(sum), d_scale(scale);
  kernels::LabelSmoothingArgs<T> args{c.rows, c.cols, c.vocabulary, words, 0.1};
  args.accumulate_dx = c.accumulate;
  args.x = x.data(), args.weight = weight.data(), args.targets = targets.data(), args.sum = sum.data();
  args.own_targets = own.data();
  args.grad_scale = scale.data();
  if (c.learns) args.dx = dx.data(), args.dweight = dweight.data();
  kernels::label_smoothing<Device::cpu>(args, here, cpu);
  args.x = d_x.data(), args.weight = d_weight.data(), args.targets = d_targets.data(),
  args.sum = d_sum.data(), args.own_targets = d_own.data();
  args.grad_scale = d_scale.data();
  if (c.learns) args.dx = d_dx.data(), args.dweight = d_dweight.data();
  kernels::label_smoothing<Device::cuda>(args, there, cuda);
  expect_success(cudaDeviceSynchronize());
  EXPECT_NEAR(d_sum.get()[0], sum[0], 1e-12 * static_cast<double>(c.rows * c.cols));
  expect_near(d_dx.get(), dx, "dx");
  expect_near(d_dweight.get(), dweight, "dweight", static_cast<double>(c.rows));
}

TEST_P(EmulatedLabelSmoothing, EqualsTheCpus) {
  expect_equals_cpu<float>(GetParam());
  expect_equals_cpu<bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedLabelSmoothing,
                         testing::Values(SmoothingCase{0, 3, 4}, SmoothingCase{1, 1, 1},
                                         SmoothingCase{70, 24, 131, true}, SmoothingCase{70, 24, 131},
                                         SmoothingCase{9, 200, 65}, SmoothingCase{9, 16, 65, false, false},
                                         SmoothingCase{70, 24, 65, true, true, 66},
                                         SmoothingCase{40, 8, 0, false, true, 5}));

}  // namespace
}  // namespace ziggurat::emulation
