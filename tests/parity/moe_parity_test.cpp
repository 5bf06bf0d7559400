// An MoE layer computes the same however its experts are spread over ranks.
#include <cmath>
#include <map>
#include <mutex>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/moe/moe_ffn.h>

namespace ziggurat {
namespace {

using test::OpBench;

constexpr int64_t kMicroBatches = 4, kTokens = 22, kHidden = 16, kExperts = 8;

struct LayerCase {
  const char* name;
  moe::MoeConfig config;
  nn::MlpKind kind;
  bool residual;
};
void PrintTo(const LayerCase& c, std::ostream* os) { *os << c.name; }

// Bits of what each micro-batch made, and sums over all of them, by name.
struct Results {
  std::mutex mutex;
  std::map<std::string, std::vector<double>> exact, sum;

  void put(const std::string& name, const Tensor& t) {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(exact.emplace(name, test::to_doubles(t)).second) << name;
  }
  void add(const std::string& name, const Tensor& t) {
    const std::lock_guard lock(mutex);
    const auto values = test::to_doubles(t);
    auto& s = sum[name];
    s.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) s[i] += values[i];
  }
};

// Every rank takes its share of the micro-batches, one after the other.
template <class Layer>
void run_rank(Communicator& world, int ep, const LayerCase& c, DType dtype, Reproducible mode, bool recompute,
              Results& results) {
  nn::ParamStore store({.compute = dtype, .reproducible = mode});
  const ProcessGroups groups(world, ParallelPlan(world.size(), {ep}));
  const nn::MlpShape mlp{c.kind, kHidden, 24, true, 0.3, 0.3};
  const moe::MoeShape shape{mlp, mlp, kExperts, ep, 5};
  Layer layer(store, "layer", c.config, shape, groups);
  store.finalize();
  const bool strict = mode == Reproducible::strict;
  const int64_t rounds = kMicroBatches / world.size();

  OpBench bench(mode);
  Tape& tape = bench.tape();
  for (int64_t i = 0; i < rounds; ++i) {
    const auto micro_batch_of = [&](int64_t rank) { return rank * rounds + i; };
    const int64_t mine = micro_batch_of(world.rank());
    const std::string name = fmt::format("micro-batch {} ", mine);
    store.zero_gradients(tape.stream());
    tape.begin({.seed = 9, .step = 1, .index = mine, .count = kMicroBatches, .first = i == 0});
    const Var x = tape.variable(bench.tensor(name + "x", dtype, {kTokens, kHidden}));
    const auto run = [&layer](Tape& t, Var in) { return layer(t, in, kTokens / 2); };
    const Var y = recompute ? tape.recompute(x, run) : run(tape, x);
    results.put(name + "y", y.value());
    tape.backward(y, bench.tensor(name + "dy", dtype, {kTokens, kHidden}));
    results.put(name + "dx", tape.grad(x));
    store.settle_gradients(tape.stream());

    for (const nn::ParamEntry& entry : store.entries()) {
      const Param& p = entry.param;
      if (entry.spec.expert_parallel == 0) {
        results.put(name + entry.spec.name, p.grad);
        continue;
      }
      const int64_t sources = strict ? ep : 1, first_source = world.rank() / ep * ep;
      for (int64_t source = 0; source < sources; ++source) {
        const Tensor grads = p.grad_of_source(source);
        for (int64_t e = 0; e < grads.dim(0); ++e) {
          const std::string expert = fmt::format("{}[{}]", entry.spec.name, entry.spec.row_begin + e);
          results.add(expert, grads.rows(e, e + 1));
          if (!strict) continue;
          const int64_t from = micro_batch_of(first_source + source);
          results.put(fmt::format("micro-batch {} {}", from, expert), grads.rows(e, e + 1));
        }
      }
    }
  }
  const moe::MoeSums stats = layer.router().stats().read(tape.stream());
  EXPECT_EQ(stats.micro_batches, rounds);
  EXPECT_EQ(stats.tokens, rounds * kTokens);
  if (c.config.balance_bias) {
    const Tensor& bias = store
                             .find(std::is_same_v<Layer, moe::MoeFfn> ? "layer.router.balance_bias"
                                                                      : "layer.moe.router.balance_bias")
                             .param.value;
    layer.router().balance(tape.stream());
    if (world.rank() == 0) results.put("balance_bias", bias);
    EXPECT_NE(test::to_doubles(bias), std::vector<double>(static_cast<size_t>(bias.numel())));
  }
  std::vector<double> counts(stats.counts.begin(), stats.counts.end());
  results.add("counts", Tensor(counts.data(), DType::f64, {kExperts}));
}

std::unique_ptr<Results> run_layer(int ranks, int ep, const LayerCase& c, DType dtype, Reproducible mode,
                                   bool recompute = false) {
  auto results = std::make_unique<Results>();
  run_on_threads(ranks, [&](Communicator& world) {
    if (c.residual) {
      run_rank<moe::ResidualMoeFfn>(world, ep, c, dtype, mode, recompute, *results);
    } else {
      run_rank<moe::MoeFfn>(world, ep, c, dtype, mode, recompute, *results);
    }
  });
  return results;
}

class MoeParity : public testing::TestWithParam<LayerCase> {};

TEST_P(MoeParity, StrictBitsDoNotDependOnTheLayout) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto alone = run_layer(1, 1, GetParam(), dtype, Reproducible::strict);
    for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{2, 1}, {2, 2}, {4, 2}, {4, 4}}) {
      const auto spread = run_layer(ranks, ep, GetParam(), dtype, Reproducible::strict);
      EXPECT_EQ(spread->sum.at("counts"), alone->sum.at("counts"));
      ASSERT_EQ(spread->exact.size(), alone->exact.size());
      for (const auto& [name, values] : alone->exact) {
        ASSERT_EQ(spread->exact.at(name), values)
            << name << " on " << ranks << " ranks, expert parallel " << ep << ", " << to_string(dtype);
      }
    }
  }
}

TEST_P(MoeParity, LayoutModeAgreesWithinRounding) {
  const auto alone = run_layer(1, 1, GetParam(), DType::f64, Reproducible::layout);
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{2, 2}, {4, 2}, {4, 4}}) {
    const auto spread = run_layer(ranks, ep, GetParam(), DType::f64, Reproducible::layout);
    const auto agree = [](const auto& got, const auto& want) {
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [name, values] : want) {
        const auto& other = got.at(name);
        for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(other[i], values[i], 1e-12) << name;
      }
    };
    agree(spread->exact, alone->exact);
    agree(spread->sum, alone->sum);
  }
}

TEST_P(MoeParity, RecomputeChangesNothing) {
  const auto kept = run_layer(2, 2, GetParam(), DType::f32, Reproducible::strict);
  const auto again = run_layer(2, 2, GetParam(), DType::f32, Reproducible::strict, true);
  EXPECT_EQ(again->exact, kept->exact);
  EXPECT_EQ(again->sum, kept->sum);
}

moe::MoeConfig config(const std::function<void(moe::MoeConfig&)>& change) {
  moe::MoeConfig c;
  c.balance_coefficient = 0.1;
  c.min_capacity = 1;
  change(c);
  return c;
}

INSTANTIATE_TEST_SUITE_P(
    Layers, MoeParity,
    testing::Values(LayerCase{"top-1 with random drops", config([](auto& c) { c.jitter = 0.01; }),
                              nn::MlpKind::gelu_tanh, false},
                    LayerCase{"top-2 swiglu with drops by position", config([](auto& c) {
                                c.top_k = 2, c.drop = moe::DropPolicy::position;
                                c.renormalise = moe::Renormalise::survivors;
                                c.choice_noise = moe::ChoiceNoise::second_expert;
                              }),
                              nn::MlpKind::swiglu, false},
                    LayerCase{"dropless top-2, sequence balance, z-loss", config([](auto& c) {
                                c.top_k = 2, c.drop = moe::DropPolicy::none, c.z_coefficient = 0.01;
                                c.balance_scope = moe::BalanceScope::sequence;
                                c.renormalise = moe::Renormalise::chosen;
                              }),
                              nn::MlpKind::gelu_erf, false},
                    LayerCase{"OpenMoE's router and four matrices", config([](auto& c) {
                                c.top_k = 2, c.drop = moe::DropPolicy::position;
                                c.capacity_rule = moe::CapacityRule::without_top_k;
                                c.group_tokens = kTokens / 2, c.balance_scope = moe::BalanceScope::group;
                                c.balance_count = moe::BalanceCount::all_choices, c.z_coefficient = 0.01;
                              }),
                              nn::MlpKind::swiglu_linear, false},
                    LayerCase{"DeepSeek-V3's router", config([](auto& c) {
                                c.top_k = 2, c.drop = moe::DropPolicy::none;
                                c.score = moe::RouterScore::sigmoid, c.weight_scale = 2.5;
                                c.expert_groups = 4, c.chosen_groups = 3, c.balance_bias = true;
                                c.renormalise = moe::Renormalise::chosen;
                                c.residual_mix = moe::ResidualMix::sum;
                              }),
                              nn::MlpKind::swiglu, true},
                    LayerCase{"residual", config([](auto&) {}), nn::MlpKind::gelu_tanh, true},
                    LayerCase{"residual sum", config([](auto& c) { c.residual_mix = moe::ResidualMix::sum; }),
                              nn::MlpKind::gelu_tanh, true},
                    LayerCase{"residual sigmoid",
                              config([](auto& c) { c.residual_mix = moe::ResidualMix::sigmoid; }),
                              nn::MlpKind::swiglu, true}));

// Experts that all start alike make p mlp(x), whoever is chosen.
TEST(MoeFfn, IdenticalExpertsEqualTheDenseMlpTimesItsWeight) {
  for (const int64_t experts : {1, 4}) {
    const auto world = make_self_communicator();
    nn::ParamStore store({.compute = DType::f64});
    const ProcessGroups groups(*world, ParallelPlan(1, {1}));
    const nn::MlpShape expert{nn::MlpKind::gelu_tanh, kHidden, 24, true, 0.3, 0.3};
    const moe::MoeConfig c = config([](auto& m) {
      m.drop = moe::DropPolicy::none;
      m.identical_experts = true;
    });
    moe::MoeFfn layer(store, "layer.moe", c, {expert, expert, experts, 1, 0}, groups);
    nn::Mlp mlp(store, "layer.mlp", expert);
    store.finalize();
    for (const char* part : {"up.weight", "up.bias", "down.weight", "down.bias"}) {
      const Tensor dense = store.find(std::string("layer.mlp.") + part).param.value;
      const Tensor stacked = store.find(std::string("layer.moe.experts.") + part).param.value;
      copy(stacked.rows(0, 1), dense);
    }
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor x = bench.tensor("x", DType::f64, {kTokens, kHidden});
    const auto got = test::to_doubles(layer(tape, tape.constant(x)).value());
    auto want = test::to_doubles(mlp(tape, tape.constant(x)).value());
    const auto xs = test::to_doubles(x);
    const auto w = test::to_doubles(store.find("layer.moe.router.weight").param.value);
    for (size_t s = 0; s < kTokens; ++s) {
      std::vector<double> z(static_cast<size_t>(experts));
      double best = -INFINITY, sum = 0;
      for (size_t e = 0; e < z.size(); ++e) {
        for (size_t i = 0; i < kHidden; ++i) z[e] += xs[s * kHidden + i] * w[e * kHidden + i];
        best = std::max(best, z[e]);
      }
      for (const double v : z) sum += std::exp(v - best);
      for (size_t i = 0; i < kHidden; ++i) want[s * kHidden + i] /= sum;  // p of the best = 1 / sum
    }
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-12) << experts << " experts";
  }
}

// Fractions over all ranks and micro-batches of the step so far, so every rank sees the same balance
// gradient.
TEST(MoeFfn, GlobalBalanceCountsAllRanks) {
  const moe::MoeConfig c = config([](auto& m) {
    m.balance_scope = moe::BalanceScope::global_batch;
    m.drop = moe::DropPolicy::none;
  });
  const LayerCase layer{"global", c, nn::MlpKind::gelu_tanh, false};
  const auto alone = run_layer(1, 1, layer, DType::f64, Reproducible::layout);
  const auto spread = run_layer(4, 4, layer, DType::f64, Reproducible::layout);
  const auto again = run_layer(4, 4, layer, DType::f64, Reproducible::layout, true);
  // The last micro-batch of one rank has seen the whole batch; so has every micro-batch of four.
  const std::string last = "micro-batch 3 layer.router.weight", first = "micro-batch 0 layer.router.weight";
  for (size_t i = 0; i < alone->exact.at(last).size(); ++i) {
    ASSERT_NEAR(spread->exact.at(last)[i], alone->exact.at(last)[i], 1e-12);
  }
  EXPECT_NE(spread->exact.at(first), alone->exact.at(first));
  EXPECT_EQ(again->exact, spread->exact);
}

TEST(MoeMisuse, IsRefused) {
  const auto world = make_self_communicator();
  const ProcessGroups groups(*world, ParallelPlan(1, {1}));
  const nn::MlpShape expert{nn::MlpKind::gelu_tanh, kHidden, 24, true, 0.3, 0.3};
  nn::ParamStore store({.reproducible = Reproducible::strict}), other({});
  const auto global = config([](auto& m) { m.balance_scope = moe::BalanceScope::global_batch; });
  EXPECT_THROW(moe::MoeFfn(store, "m", global, {expert, expert, 4, 1, 0}, groups), Error);
  EXPECT_THROW(
      moe::MoeFfn(other, "m", config([](auto& m) { m.top_k = 5; }), {expert, expert, 4, 1, 0}, groups),
      Error);
  EXPECT_THROW(moe::make_token_dispatcher(*world, *world, 0), Error);
  run_on_threads(2,
                 [&](Communicator& two) { EXPECT_THROW(moe::make_token_dispatcher(two, *world, 3), Error); });
}

}  // namespace
}  // namespace ziggurat
