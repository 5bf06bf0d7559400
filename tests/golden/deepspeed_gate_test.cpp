// The router against DeepSpeed's own gates: same choices, drops, weights and balancing loss on the same
// noise.
#include <algorithm>

#include "tests/support/golden_file.h"
#include "tests/support/op_test.h"
#include <ziggurat/ops/router.h>

namespace ziggurat {
namespace {

Tensor load(test::OpBench& bench, const GoldenFile& file, const std::string& name) {
  const Tensor t = bench.zeros(DType::f32, file.shape(name));
  const std::vector<double> values = file.doubles(name);
  for (size_t i = 0; i < values.size(); ++i) t.data<float>()[i] = static_cast<float>(values[i]);
  return t;
}

ops::DropPolicy policy_of(const std::string& name) {
  if (name == "none") return ops::DropPolicy::none;
  if (name == "rts") return ops::DropPolicy::random;
  return name == "probs" ? ops::DropPolicy::probability : ops::DropPolicy::position;
}

TEST(DeepSpeedGates, TheRouterDecidesAndWeighsAlike) {
  const GoldenFile file = GoldenFile::committed("deepspeed_gates");
  for (const std::string& name : file.words("cases")) {
    SCOPED_TRACE(name);
    test::OpBench bench;
    const std::string shape = file.text(name + ".shape");
    const Tensor logits = load(bench, file, shape + ".logits"), keys = load(bench, file, shape + ".keys"),
                 gumbel = load(bench, file, shape + ".gumbel");
    const std::string policy = file.text(name + ".policy");
    ops::RouterArgs args;
    args.top_k = file.whole(name + ".k");
    args.drop = policy_of(policy);
    args.order = args.top_k > 2 ? ops::SlotOrder::token_first : ops::SlotOrder::choice_first;
    args.capacity_factor = file.number(name + ".capacity_factor");
    args.min_capacity = file.whole(name + ".min_capacity");
    args.renormalise = args.top_k == 1 ? ops::Renormalise::none : ops::Renormalise::survivors;
    args.balance_count = args.top_k > 2 ? ops::BalanceCount::all_choices : ops::BalanceCount::first_choice;
    const bool noisy = file.text(name + ".noise") == "gumbel";
    args.noise = noisy ? ops::ChoiceNoise::second_expert : ops::ChoiceNoise::none;
    args.keys = keys.data<float>(), args.gumbel = gumbel.data<float>();
    const ops::Routing got = ops::route(bench.tape(), bench.tape().constant(logits), args);

    const std::vector<int64_t> expert = file.ints(name + ".expert"), kept = file.ints(name + ".kept");
    int64_t rows = 0;
    for (size_t i = 0; i < expert.size(); ++i) {
      EXPECT_EQ(got.expert.data<int32_t>()[i], expert[i]) << "choice " << i;
      if (policy != "unspecified") {
        EXPECT_EQ(got.row_of_choice.data<int32_t>()[i] >= 0, kept[i] != 0) << "choice " << i;
      }
      rows += kept[i];
    }
    EXPECT_EQ(got.rows, rows);
    // Ours is clamped to the tokens: an expert cannot meet a token twice.
    EXPECT_EQ(got.capacity, std::min(file.ints(name + ".capacity").at(0), got.tokens));
    const std::vector<int64_t> counts = file.ints(name + ".exp_counts");
    const int32_t* before = got.counts_before.data<int32_t>();
    EXPECT_EQ(std::vector<int64_t>(before, before + got.experts), counts);
    const auto& losses = *static_cast<const kernels::RouterLosses*>(got.losses.raw());
    EXPECT_NEAR(losses.balance, file.doubles(name + ".l_aux").at(0), 1e-6 * static_cast<double>(got.experts));
    if (policy != "unspecified") {
      test::expect_close(got.weights.value(), file.doubles(name + ".weight"), got.experts, 1.0, "weights");
    }
  }
}

}  // namespace
}  // namespace ziggurat
