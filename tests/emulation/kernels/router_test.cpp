#include <limits>

#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/router.h>

namespace ziggurat::emulation {
namespace {

using kernels::ChoiceNoise;
using kernels::DropPolicy;
using kernels::Renormalise;
using kernels::SlotOrder;

struct RouterCase {
  int64_t tokens, experts, top_k;
};
void PrintTo(const RouterCase& c, std::ostream* os) {
  *os << c.tokens << " tokens, " << c.top_k << " of " << c.experts << " experts";
}

class EmulatedRouter : public EmulatedTest, public testing::WithParamInterface<RouterCase> {
 protected:
  // Of [S,E], with equal ones among them; `odd`: and with what is no number.
  std::vector<float> scores(const std::string& name, bool odd) const {
    auto z = values<float>(name, elements, 2.0);
    for (size_t i = 0; i < z.size(); i += 2) z[i] = std::nearbyint(z[i]);
    for (size_t i = 0; odd && i < z.size(); i += 5) z[i] = std::numeric_limits<float>::quiet_NaN();
    return z;
  }
  std::vector<int32_t> chosen(const std::vector<float>& logits) {
    std::vector<int32_t> expert(choices);
    kernels::router_choose<Device::cpu>(
        kernels::RouterChooseArgs<float>{c.tokens, c.experts, c.top_k, ChoiceNoise::none, logits.data(),
                                         nullptr, expert.data()},
        cpu);
    return expert;
  }
  std::vector<float> probabilities_of(const std::vector<float>& logits) {
    std::vector<float> p(elements), lse(tokens), entropy(tokens);
    kernels::router_softmax<Device::cpu>(
        kernels::RouterSoftmaxArgs<float>{c.tokens, c.experts, logits.data(), p.data(), lse.data(),
                                          entropy.data()},
        cpu);
    return p;
  }
  // Rows for two choices of three.
  std::vector<int32_t> some_rows() const {
    std::vector<int32_t> rows(choices);
    for (size_t i = 0; i < choices; ++i) rows[i] = i % 3 == 1 ? -1 : static_cast<int32_t>(i);
    return rows;
  }

  const RouterCase c = GetParam();
  const size_t tokens = static_cast<size_t>(c.tokens), experts = static_cast<size_t>(c.experts);
  const size_t elements = tokens * experts, choices = tokens * static_cast<size_t>(c.top_k);
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

TEST_P(EmulatedRouter, SoftmaxEqualsTheCpus) {
  const auto logits = values<float>("logits", elements, 3.0);
  std::vector<float> p(elements), lse(tokens), entropy(tokens);
  const DeviceArray<float> d_logits(logits), d_p(p), d_lse(lse), d_entropy(entropy);
  kernels::router_softmax<Device::cpu>(
      kernels::RouterSoftmaxArgs<float>{c.tokens, c.experts, logits.data(), p.data(), lse.data(),
                                        entropy.data()},
      cpu);
  kernels::router_softmax<Device::cuda>(
      kernels::RouterSoftmaxArgs<float>{c.tokens, c.experts, d_logits.data(), d_p.data(), d_lse.data(),
                                        d_entropy.data()},
      cuda);
  const auto terms = static_cast<double>(c.experts);
  expect_near(d_p.get(), p, "p", terms);
  expect_near(d_lse.get(), lse, "lse", terms, 8);
  expect_near(d_entropy.get(), entropy, "entropy", terms, 8);
}

TEST_P(EmulatedRouter, ChoicesAreTheCpus) {
  const auto gumbel = values<float>("gumbel", elements);
  const DeviceArray<float> d_gumbel(gumbel);
  for (const ChoiceNoise noise : {ChoiceNoise::none, ChoiceNoise::rsample, ChoiceNoise::second_expert}) {
    for (const bool odd : {false, true}) {
      const auto logits = scores("logits", odd);
      const DeviceArray<float> d_logits(logits);
      std::vector<int32_t> expert(choices);
      const DeviceArray<int32_t> d_expert(expert);
      kernels::router_choose<Device::cpu>(
          kernels::RouterChooseArgs<float>{c.tokens, c.experts, c.top_k, noise, logits.data(), gumbel.data(),
                                           expert.data()},
          cpu);
      kernels::router_choose<Device::cuda>(
          kernels::RouterChooseArgs<float>{c.tokens, c.experts, c.top_k, noise, d_logits.data(),
                                           d_gumbel.data(), d_expert.data()},
          cuda);
      EXPECT_EQ(d_expert.get(), expert) << "noise " << static_cast<int>(noise) << ", odd " << odd;
    }
  }
}

struct Tables {
  std::vector<int64_t> before, counts;
  std::vector<int32_t> row_of_choice, token_of_row, choice_of_row;  // of rows, those that are set
  bool operator==(const Tables&) const = default;
};

TEST_P(EmulatedRouter, TablesAreTheCpus) {
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  const auto logits = scores("logits", false), scored = scores("scores", true);
  const auto expert = chosen(logits);
  const DeviceArray<int32_t> d_expert(expert);
  const DeviceArray<float> d_scored(scored);
  const auto average = static_cast<int64_t>(choices / experts);
  std::vector<int64_t> capacities = {average};  // every expert is a block of 1024 threads: time
  if (experts <= 8) capacities = {0, 1, average, c.tokens};
  for (const DropPolicy drop :
       {DropPolicy::none, DropPolicy::random, DropPolicy::position, DropPolicy::probability}) {
    for (const SlotOrder order : {SlotOrder::choice_first, SlotOrder::token_first}) {
      for (const int64_t capacity : capacities) {
        SCOPED_TRACE(testing::Message() << "drop " << static_cast<int>(drop) << ", order "
                                        << static_cast<int>(order) << ", capacity " << capacity);
        Tables want{std::vector<int64_t>(experts), std::vector<int64_t>(experts),
                    std::vector<int32_t>(choices), std::vector<int32_t>(choices),
                    std::vector<int32_t>(choices)};
        const DeviceArray<int64_t> before(experts), counts(experts);
        const DeviceArray<int32_t> row_of_choice(choices), token_of_row(choices), choice_of_row(choices);
        kernels::router_assign<Device::cpu>(
            kernels::RouterAssignArgs<float>{c.tokens, c.experts, c.top_k, drop, order, capacity,
                                             expert.data(), scored.data(), scored.data(), want.before.data(),
                                             want.counts.data(), want.row_of_choice.data(),
                                             want.token_of_row.data(), want.choice_of_row.data()},
            host, cpu);
        kernels::router_assign<Device::cuda>(
            kernels::RouterAssignArgs<float>{c.tokens, c.experts, c.top_k, drop, order, capacity,
                                             d_expert.data(), d_scored.data(), d_scored.data(), before.data(),
                                             counts.data(), row_of_choice.data(), token_of_row.data(),
                                             choice_of_row.data()},
            device, cuda);
        Tables got{before.get(), counts.get(), row_of_choice.get(), token_of_row.get(), choice_of_row.get()};
        int64_t rows = 0;
        for (const int64_t count : want.counts) rows += count;
        for (Tables* tables : {&want, &got}) {
          tables->token_of_row.resize(static_cast<size_t>(rows));
          tables->choice_of_row.resize(static_cast<size_t>(rows));
        }
        EXPECT_EQ(got.before, want.before);
        EXPECT_EQ(got.counts, want.counts);
        EXPECT_EQ(got.row_of_choice, want.row_of_choice);
        EXPECT_EQ(got.token_of_row, want.token_of_row);
        EXPECT_EQ(got.choice_of_row, want.choice_of_row);
      }
    }
  }
}

TEST_P(EmulatedRouter, WeightsAndGradientsEqualTheCpus) {
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  const auto logits = values<float>("logits", elements, 3.0);
  const auto expert = chosen(logits), rows = some_rows();
  const auto p = probabilities_of(logits);
  const int64_t groups = c.tokens % 2 == 0 && c.tokens > 0 ? 2 : 1;
  const auto dweights = values<float>("dweights", choices), lse = values<float>("lse", tokens);
  std::vector<double> fraction(static_cast<size_t>(groups) * experts);
  for (size_t i = 0; i < fraction.size(); ++i) fraction[i] = 1.0 / static_cast<double>(i + 1);
  const DeviceArray<int32_t> d_expert(expert), d_rows(rows);
  const DeviceArray<float> d_p(p), d_dweights(dweights), d_lse(lse);
  const DeviceArray<double> d_fraction(fraction);
  for (const Renormalise renormalise : {Renormalise::none, Renormalise::chosen, Renormalise::survivors}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << "renormalise " << static_cast<int>(renormalise) << ", accumulate " << accumulate);
      std::vector<float> weights(choices);
      auto dlogits = values<float>("dlogits", elements);
      const DeviceArray<float> d_weights(weights), d_dlogits(dlogits);
      const kernels::RouterWeightArgs<float> args{c.tokens, c.experts,     c.top_k,     renormalise,
                                                  p.data(), expert.data(), rows.data(), weights.data()};
      const kernels::RouterWeightArgs<float> device_args{c.tokens,      c.experts,       c.top_k,
                                                         renormalise,   d_p.data(),      d_expert.data(),
                                                         d_rows.data(), d_weights.data()};
      kernels::router_weights<Device::cpu>(args, cpu);
      kernels::router_weights<Device::cuda>(device_args, cuda);
      expect_near(d_weights.get(), weights, "weights");
      kernels::router_backward<Device::cpu>(
          kernels::RouterGradArgs<float>{args, groups, dweights.data(), lse.data(), fraction.data(), 0.5, 0.1,
                                         accumulate, dlogits.data()},
          host, cpu);
      kernels::router_backward<Device::cuda>(
          kernels::RouterGradArgs<float>{device_args, groups, d_dweights.data(), d_lse.data(),
                                         d_fraction.data(), 0.5, 0.1, accumulate, d_dlogits.data()},
          device, cuda);
      expect_near(d_dlogits.get(), dlogits, "dlogits", static_cast<double>(c.experts), 32);
    }
  }
}

TEST_P(EmulatedRouter, MeansEqualTheCpus) {
  const auto logits = values<float>("logits", elements, 3.0);
  const auto expert = chosen(logits);
  const auto p = probabilities_of(logits);
  const DeviceArray<int32_t> d_expert(expert);
  const DeviceArray<float> d_p(p);
  for (const int64_t counted : {int64_t{1}, c.top_k}) {
    for (const int64_t groups : {int64_t{1}, c.tokens}) {
      std::vector<double> mean(static_cast<size_t>(groups) * experts), fraction(mean.size());
      const DeviceArray<double> d_mean(mean), d_fraction(fraction);
      kernels::router_means<Device::cpu>(
          kernels::RouterMeanArgs<float>{c.tokens, c.experts, c.top_k, groups, counted, p.data(),
                                         expert.data(), mean.data(), fraction.data()},
          cpu);
      kernels::router_means<Device::cuda>(
          kernels::RouterMeanArgs<float>{c.tokens, c.experts, c.top_k, groups, counted, d_p.data(),
                                         d_expert.data(), d_mean.data(), d_fraction.data()},
          cuda);
      EXPECT_EQ(d_fraction.get(), fraction);
      const auto got = d_mean.get();
      for (size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(got[i], mean[i], 0x1p-48) << i;
    }
  }
}

TEST_P(EmulatedRouter, NoiseIsTheCpus) {
  const kernels::RouterNoise noise{7, 3, 11};
  std::vector<float> keys(elements), gumbel(elements);
  const DeviceArray<float> d_keys(keys), d_gumbel(gumbel);
  const auto n = static_cast<int64_t>(elements);
  kernels::router_keys<Device::cpu>(noise, keys.data(), n, cpu);
  kernels::router_keys<Device::cuda>(noise, d_keys.data(), n, cuda);
  EXPECT_EQ(d_keys.get(), keys);
  kernels::router_gumbel<Device::cpu>(noise, gumbel.data(), n, cpu);
  kernels::router_gumbel<Device::cuda>(noise, d_gumbel.data(), n, cuda);
  expect_near(d_gumbel.get(), gumbel, "gumbel", 1, 4);
}

// Fewer and more experts than lanes, more choices than threads; rsample and second_expert only look at two
// choices.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedRouter,
                         testing::Values(RouterCase{0, 4, 2}, RouterCase{1, 1, 1}, RouterCase{7, 3, 2},
                                         RouterCase{1100, 3, 1}, RouterCase{530, 5, 2}, RouterCase{40, 33, 8},
                                         RouterCase{6, 70, 4}));

class EmulatedRouterBytes : public EmulatedTest {};

TEST_F(EmulatedRouterBytes, AreTheFloorAndWhatComesFromTheCache) {
  constexpr int64_t kTokens = 64, kExperts = 64, kBytes = 4 * kTokens * kExperts;
  const DeviceArray<float> logits(values<float>("logits", kTokens * kExperts)), p(kTokens * kExperts),
      lse(kTokens), entropy(kTokens);
  Stream stream(Device::cuda);
  kernels::router_softmax<Device::cuda>(
      kernels::RouterSoftmaxArgs<float>{kTokens, kExperts, logits.data(), p.data(), lse.data(),
                                        entropy.data()},
      stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts did = counts("router_softmax_kernel");
  EXPECT_EQ(did.launches, 1);
  EXPECT_EQ(did.loaded_bytes, 3 * kBytes);
  EXPECT_EQ(did.load_sectors * 32, did.loaded_bytes);
  EXPECT_EQ(did.stored_bytes, kBytes + 2 * 4 * kTokens);
}

}  // namespace
}  // namespace ziggurat::emulation
