#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/distillation.h>

namespace ziggurat::emulation {
namespace {

constexpr int32_t kIgnored = -100;

struct TilesCase {
  int64_t rows, tiles, cols, stride, teacher_stride;  // of a tile
  size_t shift;  // elements from an address that vectors can be loaded from
};
void PrintTo(const TilesCase& c, std::ostream* os) {
  *os << c.rows << " rows, " << c.tiles << " tiles of " << c.cols << " in " << c.stride << ", "
      << c.teacher_stride << "+" << c.shift;
}

class EmulatedDistillation : public EmulatedTest, public testing::WithParamInterface<TilesCase> {};

enum class Gradients { none, apart, in_place };

// Sums of exponentials of all tiles, the second of which is far above the first, and what comes of them.
template <class G>
void expect_divergence(const TilesCase& c, double scale, Gradients form) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  const auto rows = static_cast<size_t>(c.rows), n = rows * static_cast<size_t>(c.stride),
             of_teacher = rows * static_cast<size_t>(c.teacher_stride);
  const auto tile = [&](const std::string& name, int64_t t, size_t size) {
    auto logits = values<float>(name + std::to_string(t), size, 3.0);
    for (float& value : logits) value += t == 1 ? 20.0f : 0.0f;
    return logits;
  };
  struct Sums {
    std::vector<float> maximum;
    std::vector<double> sum;
    DeviceArray<float> d_maximum;
    DeviceArray<double> d_sum;
    explicit Sums(size_t size) : maximum(size), sum(size), d_maximum(maximum), d_sum(sum) {}
    kernels::ExponentialSums<float> here() { return {maximum.data(), sum.data()}; }
    kernels::ExponentialSums<float> there() { return {d_maximum.data(), d_sum.data()}; }
  };
  Sums student(rows), plain(rows), teacher(rows);
  for (int64_t t = 0; t < c.tiles; ++t) {
    const auto add = [&](const std::vector<float>& logits, int64_t stride, double by, Sums& sums) {
      const DeviceTensor<float> d_logits(logits, c.shift);
      kernels::add_exponentials<Device::cpu>(
          kernels::AddExponentialsArgs<float>{c.rows, c.cols, stride, logits.data(), by, t == 0, sums.here()},
          cpu);
      kernels::add_exponentials<Device::cuda>(
          kernels::AddExponentialsArgs<float>{c.rows, c.cols, stride, d_logits.data(), by, t == 0,
                                              sums.there()},
          cuda);
      cuda.wait();
    };
    add(tile("student", t, n), c.stride, scale, student);
    add(tile("student", t, n), c.stride, 1, plain);
    add(tile("teacher", t, of_teacher), c.teacher_stride, scale, teacher);
  }
  for (Sums* sums : {&student, &plain, &teacher}) {
    EXPECT_EQ(sums->d_maximum.get(), sums->maximum);
    const auto got = sums->d_sum.get();
    for (size_t i = 0; i < rows; ++i) EXPECT_NEAR(got[i], sums->sum[i], 1e-5 * sums->sum[i]) << i;
  }

  std::vector<int32_t> targets(rows);
  std::vector<float> target_logit(rows);
  std::vector<kernels::TokenLoss> losses(rows);
  for (size_t i = 0; i < rows; ++i) {
    targets[i] = i % 4 == 1 ? kIgnored : 0;
    target_logit[i] = static_cast<float>(i % 5);
    const double lse = static_cast<double>(plain.maximum[i]) + std::log(plain.sum[i]);
    losses[i] = {lse - static_cast<double>(target_logit[i]), 0, targets[i] != kIgnored, false};
  }
  const double grad_scale = 0.25, weight = 0.7;
  const DeviceArray<double> d_grad_scale(std::vector<double>{grad_scale}),
      d_weight(std::vector<double>{weight});
  const DeviceArray<int32_t> d_targets(targets);
  const DeviceArray<float> d_target_logit(target_logit);
  const DeviceArray<kernels::TokenLoss> d_losses(losses);
  std::vector<double> divergence(rows);
  const DeviceArray<double> d_divergence(divergence);
  for (int64_t t = 0; t < c.tiles; ++t) {
    SCOPED_TRACE(testing::Message() << "tile " << t);
    auto z = tile("student", t, n);
    const auto p = tile("teacher", t, of_teacher);
    auto gradient = values<G>("gradient", n);
    const DeviceTensor<float> d_z(z, c.shift), d_p(p, c.shift);
    const DeviceTensor<G> d_gradient(gradient, c.shift);
    const auto run = [&]<Device D>(float* logits, const float* its, const int32_t* wanted,
                                   const kernels::TokenLoss* of_tokens, const float* of_target,
                                   kernels::ExponentialSums<float> q, kernels::ExponentialSums<float> of_p,
                                   const double* g, const double* w, double* d, G* dz, Stream& stream) {
      if constexpr (std::is_same_v<G, float>) dz = form == Gradients::in_place ? logits : dz;
      kernels::distillation_tile<D>(
          kernels::DistillationTileArgs<float, G>{
              c.rows, c.cols, c.stride, c.teacher_stride, logits, its, scale, wanted, kIgnored, of_tokens,
              of_target, scale == 1 ? kernels::ExponentialSums<float>{} : q, of_p, 1e-3, g, w, t == 0, d,
              form == Gradients::none ? nullptr : dz},
          stream);
    };
    run.template operator()<Device::cpu>(z.data(), p.data(), targets.data(), losses.data(),
                                         target_logit.data(), student.here(), teacher.here(), &grad_scale,
                                         &weight, divergence.data(), gradient.data(), cpu);
    run.template operator()<Device::cuda>(
        d_z.data(), d_p.data(), d_targets.data(), d_losses.data(), d_target_logit.data(), student.there(),
        teacher.there(), d_grad_scale.data(), d_weight.data(), d_divergence.data(), d_gradient.data(), cuda);
    cuda.wait();
    if constexpr (std::is_same_v<G, float>) expect_near(d_z.get(), z, "logits or gradients", 64, 1);
    expect_near(d_gradient.get(), gradient, "gradients", 64, 1);
  }
  const auto got = d_divergence.get();
  for (size_t i = 0; i < rows; ++i) EXPECT_NEAR(got[i], divergence[i], 1e-4) << i;
  double sum = 0.5;
  const DeviceArray<double> d_sum(std::vector<double>{sum});
  kernels::add_divergences<Device::cpu>({c.rows, divergence.data(), &weight, 4, &sum}, cpu);
  kernels::add_divergences<Device::cuda>({c.rows, d_divergence.data(), d_weight.data(), 4, d_sum.data()},
                                         cuda);
  EXPECT_NEAR(d_sum.get()[0], sum, 1e-4 * static_cast<double>(c.rows + 1));
}

TEST_P(EmulatedDistillation, EqualsTheCpus) {
  for (const double scale : {1.0, 0.5}) {
    for (const Gradients form : {Gradients::none, Gradients::apart, Gradients::in_place}) {
      SCOPED_TRACE(testing::Message() << "scale " << scale << " gradients " << static_cast<int>(form));
      expect_divergence<float>(GetParam(), scale, form);
      expect_divergence<bf16>(GetParam(), scale, form);
    }
  }
}

// The third of three parts has no words.
TEST_F(EmulatedTest, SumsOfPartsOfAVocabularyBecomeThoseOfAll) {
  constexpr int64_t kRows = 300, kParts = 3;
  const auto maxima = values<float>("maxima", kParts * kRows, 20.0);
  auto sums = values<double>("sums", kParts * kRows, 0.4);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = i < 2 * kRows ? 1.5 + sums[i] : 0;
  std::vector<float> maximum(kRows), want_maximum(kRows);
  std::vector<double> sum(kRows), want_sum(kRows);
  for (size_t i = 0; i < kRows; ++i) {
    want_maximum[i] = std::max(maxima[i], maxima[kRows + i]);
    for (const size_t at : {i, kRows + i}) {
      want_sum[i] += sums[at] * std::exp(static_cast<double>(maxima[at] - want_maximum[i]));
    }
  }
  const DeviceArray<float> d_maxima(maxima), d_maximum(maximum);
  const DeviceArray<double> d_sums(sums), d_sum(sum);
  Stream cpu(Device::cpu), cuda(Device::cuda);
  auto maxima_here = maxima;
  kernels::join_exponentials<Device::cpu>(
      kernels::JoinExponentialsArgs<float>{
          kRows, kParts, {maxima_here.data(), sums.data()}, {maximum.data(), sum.data()}},
      cpu);
  kernels::join_exponentials<Device::cuda>(
      kernels::JoinExponentialsArgs<float>{
          kRows, kParts, {d_maxima.data(), d_sums.data()}, {d_maximum.data(), d_sum.data()}},
      cuda);
  EXPECT_EQ(maximum, want_maximum);
  EXPECT_EQ(d_maximum.get(), want_maximum);
  const auto of_device = d_sum.get();
  for (size_t i = 0; i < kRows; ++i) {
    EXPECT_NEAR(sum[i], want_sum[i], 1e-14 * want_sum[i]) << i;
    EXPECT_NEAR(of_device[i], want_sum[i], 1e-14 * want_sum[i]) << i;
  }
}

// With and without padding; tiles that are no multiple of a load, and more than a block's loads.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedDistillation,
                         testing::Values(TilesCase{0, 2, 8, 8, 8, 0}, TilesCase{1, 1, 1, 1, 1, 0},
                                         TilesCase{9, 3, 7, 7, 9, 0}, TilesCase{9, 3, 13, 16, 32, 0},
                                         TilesCase{5, 2, 16, 16, 16, 1}, TilesCase{3, 2, 523, 528, 544, 0},
                                         TilesCase{150, 2, 8, 8, 8, 0}));

}  // namespace
}  // namespace ziggurat::emulation
