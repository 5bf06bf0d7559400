#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/cross_entropy.h>

namespace ziggurat::emulation {
namespace {

constexpr int32_t kIgnored = -100;

struct TilesCase {
  int64_t rows, tiles, cols, stride;  // of a tile
  size_t shift;                       // elements from an address that vectors can be loaded from
};
void PrintTo(const TilesCase& c, std::ostream* os) {
  *os << c.rows << " rows, " << c.tiles << " tiles of " << c.cols << " in " << c.stride << "+" << c.shift;
}

class EmulatedCrossEntropy : public EmulatedTest, public testing::WithParamInterface<TilesCase> {
 protected:
  const TilesCase c = GetParam();
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

// Targets all over the vocabulary, some twice, some ignored.
std::vector<int32_t> targets_of(int64_t rows, int64_t vocabulary) {
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < rows; ++i) {
    targets.push_back(i % 4 == 1 ? kIgnored : static_cast<int32_t>(i / 2 * 7 % vocabulary));
  }
  return targets;
}

double largest(const std::vector<float>& values) {
  double result = 1;
  for (const float value : values) result = std::max(result, std::abs(static_cast<double>(value)));
  return result;
}

enum class Exponentials { none, apart, in_place };

// All tiles and the losses from them. The second tile is so far above the first that its reference moves.
template <class G>
void expect_losses(const TilesCase& c, Exponentials form, Stream& cpu, Stream& cuda) {
  const auto rows = static_cast<size_t>(c.rows), n = rows * static_cast<size_t>(c.stride),
             all = rows * static_cast<size_t>(c.tiles);
  const auto targets = targets_of(c.rows, c.tiles * c.cols);
  const DeviceArray<int32_t> d_targets(targets);
  std::vector<float> reference(all), maximum(all), target_logit(rows), factor(all);
  std::vector<double> sum(all);
  const DeviceArray<float> d_reference(reference), d_maximum(maximum), d_target_logit(target_logit),
      d_factor(factor);
  const DeviceArray<double> d_sum(sum);
  for (int64_t t = 0; t < c.tiles; ++t) {
    SCOPED_TRACE(testing::Message() << "tile " << t);
    auto logits = values<float>("logits " + std::to_string(t), n, 3.0);
    for (float& value : logits) value += t == 1 ? 100.0f : 0.0f;
    auto apart = values<G>("exponentials", n);
    const DeviceTensor<float> d_logits(logits, c.shift);
    const DeviceTensor<G> d_apart(apart, c.shift);
    const auto run = [&]<Device D>(float* x, const int32_t* wanted, float* r, float* m, double* s, float* tl,
                                   G* e, Stream& stream) {
      if constexpr (std::is_same_v<G, float>) e = form == Exponentials::in_place ? x : e;
      kernels::softmax_tile<D>(
          kernels::SoftmaxTileArgs<float, G>{
              c.rows, c.cols, c.stride, x, wanted, t * c.cols, t > 0 ? r + (t - 1) * c.rows : nullptr,
              r + t * c.rows, m + t * c.rows, s + t * c.rows, tl, form == Exponentials::none ? nullptr : e},
          stream);
    };
    run.template operator()<Device::cpu>(logits.data(), targets.data(), reference.data(), maximum.data(),
                                         sum.data(), target_logit.data(), apart.data(), cpu);
    run.template operator()<Device::cuda>(d_logits.data(), d_targets.data(), d_reference.data(),
                                          d_maximum.data(), d_sum.data(), d_target_logit.data(),
                                          d_apart.data(), cuda);
    expect_near(d_logits.get(), logits, "logits or exponentials", 1, largest(logits));
    expect_near(d_apart.get(), apart, "exponentials");
  }
  EXPECT_EQ(d_reference.get(), reference);
  EXPECT_EQ(d_maximum.get(), maximum);
  EXPECT_EQ(d_target_logit.get(), target_logit);
  const auto got_sum = d_sum.get();
  for (size_t i = 0; i < all; ++i) EXPECT_NEAR(got_sum[i], sum[i], 1e-5 * sum[i] + 1e-30) << i;

  const double grad_scale = 0.25;
  const DeviceArray<double> d_grad_scale(std::vector<double>{grad_scale});
  std::vector<kernels::TokenLoss> losses(rows);
  const DeviceArray<kernels::TokenLoss> d_losses(losses);
  kernels::cross_entropy<Device::cpu>(
      kernels::CrossEntropyArgs<float>{c.rows, c.tiles, reference.data(), maximum.data(), sum.data(),
                                       target_logit.data(), targets.data(), kIgnored, &grad_scale, 1e-3,
                                       losses.data(), factor.data()},
      cpu);
  kernels::cross_entropy<Device::cuda>(
      kernels::CrossEntropyArgs<float>{c.rows, c.tiles, d_reference.data(), d_maximum.data(), d_sum.data(),
                                       d_target_logit.data(), d_targets.data(), kIgnored, d_grad_scale.data(),
                                       1e-3, d_losses.data(), d_factor.data()},
      cuda);
  expect_near(d_factor.get(), factor, "factor", 64);
  const auto got = d_losses.get();
  for (size_t i = 0; i < rows; ++i) {
    EXPECT_NEAR(got[i].cross_entropy, losses[i].cross_entropy, 1e-5) << i;
    EXPECT_NEAR(got[i].z_loss, losses[i].z_loss, 1e-5) << i;
    EXPECT_EQ(got[i].counted, losses[i].counted) << i;
    EXPECT_EQ(got[i].correct, losses[i].correct) << i;
  }
}

TEST_P(EmulatedCrossEntropy, LossesEqualTheCpus) {
  for (const Exponentials form : {Exponentials::none, Exponentials::apart, Exponentials::in_place}) {
    SCOPED_TRACE(testing::Message() << "exponentials " << static_cast<int>(form));
    expect_losses<float>(c, form, cpu, cuda);
    expect_losses<bf16>(c, form, cpu, cuda);
  }
}

template <class G>
void expect_row_sums(const TilesCase& c, Stream& cpu, Stream& cuda) {
  const auto rows = static_cast<size_t>(c.rows), n = rows * static_cast<size_t>(c.cols),
             vocabulary = static_cast<size_t>(c.tiles * c.cols);
  const auto targets = targets_of(c.rows, c.tiles * c.cols);
  const auto x = values<G>("x", n), weight = values<G>("weight", vocabulary * static_cast<size_t>(c.cols));
  const auto factor = values<float>("factor", rows), product = values<float>("product", n);
  std::vector<G> scaled(n);
  auto sum = values<float>("sum", n), dx = values<float>("dx", n),
       dweight = values<float>("dweight", weight.size());
  const DeviceArray<int32_t> d_targets(targets);
  const DeviceArray<float> d_factor(factor);
  const DeviceTensor<G> d_x(x, c.shift), d_weight(weight, c.shift), d_scaled(scaled, c.shift);
  const DeviceTensor<float> d_product(product, c.shift), d_sum(sum, c.shift), d_dx(dx, c.shift),
      d_dweight(dweight, c.shift);

  kernels::scale_rows<Device::cpu>(x.data(), factor.data(), c.rows, c.cols, scaled.data(), cpu);
  kernels::scale_rows<Device::cuda>(d_x.data(), d_factor.data(), c.rows, c.cols, d_scaled.data(), cuda);
  expect_near(d_scaled.get(), scaled, "scaled", 1, 0);
  kernels::add_scaled_rows<Device::cpu>(product.data(), factor.data(), c.rows, c.cols, sum.data(), cpu);
  kernels::add_scaled_rows<Device::cuda>(d_product.data(), d_factor.data(), c.rows, c.cols, d_sum.data(),
                                         cuda);
  expect_near(d_sum.get(), sum, "sum", 1, 8);
  const double grad_scale = 0.25;
  const DeviceArray<double> d_grad_scale(std::vector<double>{grad_scale});
  for (const int wanted : {0, 1, 2, 3}) {
    const auto at = [&](auto* dx_there, auto* dweight_there) {
      return std::pair{wanted & 1 ? dx_there : nullptr, wanted & 2 ? dweight_there : nullptr};
    };
    const auto here = at(dx.data(), dweight.data()), there = at(d_dx.data(), d_dweight.data());
    kernels::subtract_targets<Device::cpu>(
        kernels::SubtractTargetsArgs<float, G>{c.rows, c.cols, targets.data(), kIgnored, &grad_scale,
                                               x.data(), weight.data(), here.first, here.second},
        cpu);
    kernels::subtract_targets<Device::cuda>(
        kernels::SubtractTargetsArgs<float, G>{c.rows, c.cols, d_targets.data(), kIgnored,
                                               d_grad_scale.data(), d_x.data(), d_weight.data(), there.first,
                                               there.second},
        cuda);
    expect_near(d_dx.get(), dx, "dx", 2, 8);
    expect_near(d_dweight.get(), dweight, "dweight", static_cast<double>(c.rows), 8);
  }
}

TEST_P(EmulatedCrossEntropy, SumsOfRowsEqualTheCpus) {
  expect_row_sums<float>(c, cpu, cuda);
  expect_row_sums<bf16>(c, cpu, cuda);
}

// With and without padding; tiles that are no multiple of a load, and more than a block's loads.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedCrossEntropy,
                         testing::Values(TilesCase{0, 2, 8, 8, 0}, TilesCase{1, 1, 1, 1, 0},
                                         TilesCase{9, 3, 7, 7, 0}, TilesCase{9, 3, 13, 16, 0},
                                         TilesCase{5, 2, 16, 16, 1}, TilesCase{3, 2, 523, 528, 0},
                                         TilesCase{150, 2, 8, 8, 0}));

class EmulatedCrossEntropyBytes : public EmulatedTest {};

// The floor of the contract; the second time logits are read they come from the cache.
TEST_F(EmulatedCrossEntropyBytes, AreTheFloor) {
  constexpr int64_t kRows = 16, kCols = 2048, kN = kRows * kCols;
  const DeviceArray<float> logits(values<float>("logits", kN));
  const DeviceArray<bf16> e(kN);
  const DeviceArray<int32_t> targets(targets_of(kRows, kCols));
  const DeviceArray<float> reference(kRows), maximum(kRows), target_logit(kRows);
  const DeviceArray<double> sum(kRows);
  Stream stream(Device::cuda);
  kernels::softmax_tile<Device::cuda>(
      kernels::SoftmaxTileArgs<float, bf16>{kRows, kCols, kCols, logits.data(), targets.data(), 0, nullptr,
                                            reference.data(), maximum.data(), sum.data(), target_logit.data(),
                                            e.data()},
      stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts did = counts("softmax_tile_kernel<bf16, 8>");
  EXPECT_EQ(did.launches, 1);
  const int64_t counted = kRows * 3 / 4;  // targets, whose logits are read once more
  EXPECT_EQ(did.loaded_bytes, 2 * 4 * kN + 4 * kRows + 4 * counted);
  EXPECT_EQ(did.stored_bytes, 2 * kN + (4 + 4 + 8) * kRows + 4 * counted);
}

}  // namespace
}  // namespace ziggurat::emulation
