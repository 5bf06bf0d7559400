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
  Tables(size_t experts, size_t choices, size_t rows)
      : before(experts),
        counts(experts),
        offsets(experts + 1),
        row_of_choice(choices),
        token_of_row(rows),
        choice_of_row(rows) {}
  std::vector<int32_t> before, counts, offsets, row_of_choice, token_of_row, choice_of_row;
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
        // As many rows as there may be, where some experts do not fill theirs.
        const size_t rows =
            drop == DropPolicy::none ? choices : std::min(choices, experts * static_cast<size_t>(capacity));
        Tables want(experts, choices, rows);
        const DeviceArray<int32_t> before(experts), counts(experts), offsets(experts + 1);
        const std::vector<int32_t> earlier(rows, 7);  // fresh memory is -1
        const DeviceArray<int32_t> row_of_choice(choices), token_of_row(earlier), choice_of_row(earlier);
        kernels::router_assign<Device::cpu>(
            kernels::RouterAssignArgs<float>{c.tokens, c.experts, c.top_k, drop, order, capacity,
                                             static_cast<int64_t>(rows), expert.data(), scored.data(),
                                             scored.data(), want.before.data(), want.counts.data(),
                                             want.offsets.data(), want.row_of_choice.data(),
                                             want.token_of_row.data(), want.choice_of_row.data()},
            host, cpu);
        kernels::router_assign<Device::cuda>(
            kernels::RouterAssignArgs<float>{c.tokens, c.experts, c.top_k, drop, order, capacity,
                                             static_cast<int64_t>(rows), d_expert.data(), d_scored.data(),
                                             d_scored.data(), before.data(), counts.data(), offsets.data(),
                                             row_of_choice.data(), token_of_row.data(), choice_of_row.data()},
            device, cuda);
        EXPECT_EQ(before.get(), want.before);
        EXPECT_EQ(counts.get(), want.counts);
        EXPECT_EQ(offsets.get(), want.offsets);
        EXPECT_EQ(row_of_choice.get(), want.row_of_choice);
        EXPECT_EQ(token_of_row.get(), want.token_of_row);
        EXPECT_EQ(choice_of_row.get(), want.choice_of_row);
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
  const double scale = 0.25;
  const DeviceArray<double> d_scale(std::vector<double>{scale});
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
          kernels::RouterGradArgs<float>{args, groups, dweights.data(), lse.data(), fraction.data(), 2, 0.4,
                                         &scale, accumulate, dlogits.data()},
          host, cpu);
      kernels::router_backward<Device::cuda>(
          kernels::RouterGradArgs<float>{device_args, groups, d_dweights.data(), d_lse.data(),
                                         d_fraction.data(), 2, 0.4, d_scale.data(), accumulate,
                                         d_dlogits.data()},
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

TEST_P(EmulatedRouter, SumsInDoubleEqualTheCpus) {
  const auto lse = values<float>("lse", tokens, 3.0), entropy = values<float>("entropy", tokens);
  const int64_t groups = c.tokens % 2 == 0 ? c.tokens / 2 : 1;
  const auto means = static_cast<size_t>(std::max<int64_t>(groups, 1)) * experts;  // fractions of a step: 1
  std::vector<double> fraction(means), mean(means);
  for (size_t i = 0; i < means; ++i) {
    fraction[i] = 1.0 / static_cast<double>(i + 1);
    mean[i] = 1.0 / static_cast<double>(2 * i + 3);
  }
  std::vector<int32_t> before(experts), counts(experts);
  for (size_t e = 0; e < experts; ++e) {
    before[e] = static_cast<int32_t>(3 * e + 1);
    counts[e] = static_cast<int32_t>(2 * e);
  }
  const auto of_sums = static_cast<size_t>(kernels::router_sums_size(c.experts));
  std::vector<double> losses(3), sums(of_sums, 0.25), of_step(experts, 7.0), assignments(experts);
  const DeviceArray<float> d_lse(lse), d_entropy(entropy);
  const DeviceArray<double> d_fraction(fraction), d_mean(mean), d_losses(losses), d_sums(sums),
      d_of_step(of_step), d_assignments(assignments);
  const DeviceArray<int32_t> d_before(before), d_counts(counts);
  const auto run = [&]<Device D>(const float* l, const float* h, double* f, const double* m, double* of,
                                 double* s, const int32_t* b, const int32_t* n, double* step, double* a,
                                 Stream& stream) {
    auto* const of_losses = reinterpret_cast<kernels::RouterLosses*>(of);
    kernels::router_token_losses<D>(kernels::RouterTokenLossArgs<float>{c.tokens, l, h, of_losses}, stream);
    kernels::router_balance<D>({c.experts, groups, f, m, of_losses}, stream);
    for (int i = 0; i < 2; ++i) {
      kernels::router_statistics<D>({c.tokens, c.experts, c.top_k, 0.5, 0.25, of_losses, b, n, s}, stream);
      kernels::router_assignments<D>(f, c.experts, c.tokens, a, stream);
      kernels::router_fractions<D>({c.experts, a, i == 0, step, f}, stream);
    }
    kernels::router_fractions<D>({c.experts, nullptr, false, step, f}, stream);
  };
  run.operator()<Device::cpu>(lse.data(), entropy.data(), fraction.data(), mean.data(), losses.data(),
                              sums.data(), before.data(), counts.data(), of_step.data(), assignments.data(),
                              cpu);
  run.operator()<Device::cuda>(d_lse.data(), d_entropy.data(), d_fraction.data(), d_mean.data(),
                               d_losses.data(), d_sums.data(), d_before.data(), d_counts.data(),
                               d_of_step.data(), d_assignments.data(), cuda);
  const auto expect_equal = [](const DeviceArray<double>& got, const std::vector<double>& want,
                               const char* what) {
    const std::vector<double> values = got.get();
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(values[i], want[i], 0x1p-40 * (1 + std::abs(want[i]))) << what << " " << i;
    }
  };
  expect_equal(d_losses, losses, "losses");
  expect_equal(d_sums, sums, "sums");
  expect_equal(d_of_step, of_step, "assignments of the step");
  expect_equal(d_fraction, fraction, "fraction");
}

TEST_P(EmulatedRouter, NoiseIsTheCpus) {
  const uint64_t moment = 11;
  const DeviceArray<uint64_t> d_moment(std::vector<uint64_t>{moment});
  const kernels::RouterNoise noise{7, 3, &moment}, d_noise{7, 3, d_moment.data()};
  std::vector<float> keys(elements), gumbel(elements);
  const DeviceArray<float> d_keys(keys), d_gumbel(gumbel);
  const auto n = static_cast<int64_t>(elements);
  kernels::router_keys<Device::cpu>(noise, keys.data(), n, cpu);
  kernels::router_keys<Device::cuda>(d_noise, d_keys.data(), n, cuda);
  EXPECT_EQ(d_keys.get(), keys);
  kernels::router_gumbel<Device::cpu>(noise, gumbel.data(), n, cpu);
  kernels::router_gumbel<Device::cuda>(d_noise, d_gumbel.data(), n, cuda);
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
