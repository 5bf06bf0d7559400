// Routing, dispatch, experts and whole MoE layers on the device against the CPU.
#include <map>

#include "tests/emulation/ops/device_and_cpu.h"
#include "tests/support/device_bench.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/moe/moe_ffn.h>
#include <ziggurat/ops/dispatch.h>
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat::emulation {
namespace {

using kernels::ChoiceNoise;
using kernels::DropPolicy;
using kernels::Renormalise;
using kernels::SlotOrder;
using ops::BalanceScope;

using Named = std::map<std::string, std::vector<double>>;

class EmulatedMoe : public EmulatedTest {};

constexpr int64_t kTokens = 24, kExperts = 5;

struct RouterCase : ops::RouterArgs {
  bool with_bias = false;  // of the choice
};

// Everything that a routing tells, and the gradient of its logits.
Named route(Device device, test::OpBench& host, RouterCase args, bool training, int64_t experts) {
  test::DeviceBench bench(device);
  Tape& tape = bench.tape();
  tape.begin({.seed = 1, .step = 3, .index = 2, .training = training});
  const Var logits =
      tape.variable(bench.on_device(host.tensor("logits", DType::f32, {kTokens, experts}, 2.0)));
  if (args.with_bias) args.choice_bias = bench.on_device(host.tensor("bias", DType::f32, {experts}));
  const ops::Routing r = ops::route(tape, logits, args);
  const auto alone = make_self_communicator();
  if (args.balance_scope == BalanceScope::global_batch) {
    const Tensor of_step = bench.on_device(host.tensor("of the step", DType::f64, {experts}, 0.0, 7.0));
    ops::use_fractions_of_step(tape, r, *alone, of_step, false);
  }
  const Tensor sums = bench.empty(DType::f64, {kernels::router_sums_size(experts)});
  fill_zero(sums, bench.stream());
  ops::add_statistics(tape, r, 0.5, 0.25, sums);
  Named got;
  if (training) {
    tape.backward(r.weights, bench.on_device(host.tensor("dweights", DType::f32, {kTokens, args.top_k})));
    got["gradient"] = bench.values(tape.grad(logits));
  }
  const std::pair<const char*, const Tensor*> tensors[] = {{"weights", &r.weights.value()},
                                                           {"expert", &r.expert},
                                                           {"row_of_choice", &r.row_of_choice},
                                                           {"token_of_row", &r.token_of_row},
                                                           {"choice_of_row", &r.choice_of_row},
                                                           {"counts", &r.counts},
                                                           {"counts_before", &r.counts_before},
                                                           {"offsets", &r.offsets},
                                                           {"fraction", &r.fraction},
                                                           {"mean_probability", &r.mean_probability},
                                                           {"losses", &r.losses},
                                                           {"sums", &sums}};
  for (const auto& [name, tensor] : tensors) got[name] = bench.values(*tensor);
  return got;
}

void expect_same_routing(const RouterCase& args, bool training = true, int64_t experts = kExperts) {
  SCOPED_TRACE(testing::Message() << "top " << args.top_k << ", drop " << static_cast<int>(args.drop)
                                  << ", order " << static_cast<int>(args.order) << ", scope "
                                  << static_cast<int>(args.balance_scope) << ", training " << training);
  test::OpBench host;
  const Named want = route(Device::cpu, host, args, training, experts);
  Named got = route(Device::cuda, host, args, training, experts);
  const auto rows = static_cast<size_t>(want.at("offsets").back());
  for (const char* name : {"token_of_row", "choice_of_row"}) {  // behind the last row, nobody's
    std::vector<double>& table = got[name];
    ASSERT_GE(table.size(), rows);
    EXPECT_EQ(std::vector<double>(table.begin() + static_cast<std::ptrdiff_t>(rows), table.end()),
              std::vector<double>(table.size() - rows, -1.0));
    table.resize(rows);
  }
  for (const char* name :
       {"expert", "row_of_choice", "token_of_row", "choice_of_row", "counts", "counts_before", "offsets"}) {
    EXPECT_EQ(got.at(name), want.at(name)) << name;
  }
  for (const auto& [name, values] : want) {
    test::expect_within(got.at(name), values, test::random_walk(DType::f32, 8) * test::largest(values), name);
  }
}

RouterCase router_args(int64_t top_k, DropPolicy drop) {
  RouterCase args;
  args.top_k = top_k, args.drop = drop, args.capacity_factor = 0.8, args.min_capacity = 1;
  args.balance_coefficient = 0.3, args.z_coefficient = 0.1;
  return args;
}

TEST_F(EmulatedMoe, RoutingIsTheCpus) {
  for (const DropPolicy drop :
       {DropPolicy::none, DropPolicy::random, DropPolicy::position, DropPolicy::probability}) {
    for (const SlotOrder order : {SlotOrder::choice_first, SlotOrder::token_first}) {
      for (const int64_t top_k : {1, 2, 3}) {
        RouterCase args = router_args(top_k, drop);
        args.order = order;
        args.renormalise = top_k == 2 ? Renormalise::survivors : Renormalise::none;
        args.noise = top_k == 1   ? ChoiceNoise::rsample
                     : top_k == 2 ? ChoiceNoise::second_expert
                                  : ChoiceNoise::none;
        expect_same_routing(args);
      }
    }
  }
}

TEST_F(EmulatedMoe, BalancesOverTheScopesOfTheCpu) {
  for (const BalanceScope scope :
       {BalanceScope::micro_batch, BalanceScope::sequence, BalanceScope::global_batch}) {
    RouterCase args = router_args(2, DropPolicy::position);
    args.balance_scope = scope;
    args.balance_count = ops::BalanceCount::all_choices;
    args.sequence_length = kTokens / 4;
    expect_same_routing(args);
  }
}

// As DeepSeek and OpenMoE route: scores by themselves, groups of experts, a bias, scaled weights.
TEST_F(EmulatedMoe, SigmoidLimitedAndBiasedRoutingIsTheCpus) {
  for (const kernels::RouterScore score : {kernels::RouterScore::softmax, kernels::RouterScore::sigmoid}) {
    for (const int64_t chosen_groups : {1, 2}) {
      for (const BalanceScope scope : {BalanceScope::micro_batch, BalanceScope::sequence}) {
        RouterCase args = router_args(2, DropPolicy::probability);
        args.score = score, args.expert_groups = 3, args.chosen_groups = chosen_groups;
        args.weight_scale = 2.5;
        args.renormalise = Renormalise::chosen;
        args.balance_scope = scope, args.sequence_length = kTokens / 4;
        args.balance_count = ops::BalanceCount::all_choices;
        if (score == kernels::RouterScore::sigmoid) args.z_coefficient = 0;
        expect_same_routing(args, true, 6);
        args.with_bias = true;
        expect_same_routing(args, true, 6);
        expect_same_routing(args, false, 6);
      }
    }
  }
}

TEST_F(EmulatedMoe, RoutingInGroupsOfTokensIsTheCpus) {
  for (const DropPolicy drop :
       {DropPolicy::none, DropPolicy::random, DropPolicy::position, DropPolicy::probability}) {
    for (const SlotOrder order : {SlotOrder::choice_first, SlotOrder::token_first}) {
      RouterCase args = router_args(2, drop);
      args.order = order, args.group_tokens = kTokens / 3;
      args.balance_scope = BalanceScope::group;
      expect_same_routing(args);
    }
  }
}

TEST_F(EmulatedMoe, TheBiasOfTheChoiceMovesAsOnTheCpu) {
  std::vector<std::vector<double>> moved;
  for (const Device device : {Device::cpu, Device::cuda}) {
    test::DeviceBench bench(device);
    test::OpBench host;
    const Tensor sums_here = host.zeros(DType::f64, {kernels::router_sums_size(kExperts)});
    const double loads[] = {4, 0, 9, 4, 3};  // whose mean is one of them
    std::copy_n(loads, kExperts, sums_here.data<double>() + kernels::router_sums_size(0));
    const Tensor sums = bench.on_device(sums_here), there = bench.empty(DType::f64, {kExperts}),
                 bias = bench.on_device(host.tensor("bias", DType::f32, {kExperts}));
    const auto alone = make_self_communicator();
    ops::sum_loads(sums, there, *alone, bench.stream());
    ops::move_balance_bias(there, 0.125, bias, bench.stream());
    EXPECT_EQ(bench.values(there), std::vector<double>(loads, loads + kExperts));
    moved.push_back(bench.values(bias));
  }
  EXPECT_EQ(moved[1], moved[0]);
}

TEST_F(EmulatedMoe, RoutingOfEvaluationIsTheCpus) {
  for (const double factor : {0.0, 0.5}) {
    RouterCase args = router_args(2, DropPolicy::random);
    args.eval_capacity_factor = factor;
    expect_same_routing(args, false);
  }
}

struct LayerCase {
  moe::MoeConfig config;
  nn::MlpKind kind = nn::MlpKind::gelu_tanh;
  bool residual = false;
};

constexpr int64_t kWidth = 16, kInner = 24, kLayerExperts = 4;

// Output, gradients and statistics of one micro-batch of a layer.
template <class Layer>
Named run_layer(Device device, test::OpBench& host, const LayerCase& c, DType dtype, Communicator& world) {
  test::DeviceBench bench(device, int64_t{1} << 21);
  Stream& stream = bench.stream();
  nn::ParamStore store({.compute = dtype, .device = device});
  const ProcessGroups groups(world, ParallelPlan(world.size(), {world.size()}));
  const nn::MlpShape mlp{c.kind, kWidth, kInner, true, 0.3, 0.3};
  Layer layer(store, "layer", c.config, moe::MoeShape{mlp, mlp, kLayerExperts, world.size(), 5}, groups);
  store.finalize();
  const std::string rank = std::to_string(world.rank());
  const Var x = bench.tape().variable(bench.on_device(host.tensor("x" + rank, dtype, {kTokens, kWidth})));
  const Tensor dy = bench.on_device(host.tensor("dy" + rank, dtype, {kTokens, kWidth}));
  const int64_t waits = device_work().waits;
  const Var y = layer(bench.tape(), x, kTokens / 2);
  bench.tape().backward(y, dy);
  if (world.size() == 1) {
    EXPECT_EQ(device_work().waits, waits) << "the host waited for the device within a layer";
  }
  store.settle_gradients(stream);
  Named got = {{"y", bench.values(y.value())}, {"gradient of x", bench.values(bench.tape().grad(x))}};
  for (const nn::ParamEntry& entry : store.entries()) {
    got["gradient of " + entry.spec.name] = bench.values(entry.param.grad);
  }
  const moe::MoeSums sums = layer.router().stats().read(stream);
  EXPECT_EQ(sums.tokens, kTokens);
  EXPECT_EQ(sums.micro_batches, 1);
  got["counts"] = {sums.counts.begin(), sums.counts.end()};
  got["counts before"] = {sums.counts_before.begin(), sums.counts_before.end()};
  got["sums"] = {static_cast<double>(sums.dropped), sums.entropy, sums.balance, sums.z};
  const Tensor auxiliary = bench.empty(DType::f64, {2});
  fill_zero(auxiliary, stream);
  layer.router().stats().add_losses(auxiliary, stream);
  got["auxiliary loss"] = bench.values(auxiliary);
  return got;
}

Named run_layer(Device device, const LayerCase& c, DType dtype, Communicator& world) {
  test::OpBench host;
  return c.residual ? run_layer<moe::ResidualMoeFfn>(device, host, c, dtype, world)
                    : run_layer<moe::MoeFfn>(device, host, c, dtype, world);
}

void expect_same_layer(const LayerCase& c, Communicator& world) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Named want = run_layer(Device::cpu, c, dtype, world);
    const Named got = run_layer(Device::cuda, c, dtype, world);
    EXPECT_EQ(got.at("counts"), want.at("counts"));
    EXPECT_EQ(got.at("counts before"), want.at("counts before"));
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, values] : want) {
      // Three products and an activation there, as many back, each rounded.
      const double tolerance = test::random_walk(dtype, 16) * test::largest(values);
      test::expect_within(got.at(name), values, tolerance, std::string(to_string(dtype)) + ", " + name);
    }
  }
}

std::vector<LayerCase> layer_cases() {
  std::vector<LayerCase> cases(4);
  cases[0].config.capacity_factor = 0.8;
  cases[1].residual = true;
  cases[1].config.top_k = 2;
  cases[1].config.drop = DropPolicy::position;
  cases[1].config.capacity_factor = 0.7;
  cases[1].config.z_coefficient = 0.01;
  cases[1].config.renormalise = Renormalise::survivors;
  cases[2].kind = nn::MlpKind::swiglu;
  cases[2].residual = true;
  cases[2].config.top_k = 2;
  cases[2].config.drop = DropPolicy::none;
  cases[2].config.residual_mix = moe::ResidualMix::sigmoid;
  cases[2].config.balance_scope = BalanceScope::global_batch;
  cases[3].config.score = kernels::RouterScore::sigmoid;
  cases[3].config.top_k = 2;
  cases[3].config.drop = DropPolicy::probability;
  cases[3].config.capacity_factor = 0.9;
  cases[3].config.expert_groups = 2, cases[3].config.chosen_groups = 1;
  cases[3].config.balance_bias = true;
  cases[3].config.renormalise = Renormalise::chosen;
  cases[3].config.weight_scale = 2.5;
  return cases;
}

TEST_F(EmulatedMoe, LayersEqualTheCpusWithoutWaiting) {
  const auto alone = make_self_communicator();
  for (const LayerCase& c : layer_cases()) expect_same_layer(c, *alone);
}

TEST_F(EmulatedMoe, LayersSharedByTwoRanksEqualTheCpus) {
  for (const LayerCase& c : layer_cases()) {
    run_on_threads(2, [&](Communicator& world) { expect_same_layer(c, world); });
  }
}

}  // namespace
}  // namespace ziggurat::emulation
