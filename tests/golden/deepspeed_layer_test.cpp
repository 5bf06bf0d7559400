// MoE layers against DeepSpeed's own on the same weights and tokens: outputs, balancing loss, gradients
// (scripts/golden/make_deepspeed_goldens.py).
#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>

#include "tests/support/golden_file.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/moe/moe_ffn.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

using Named = std::map<std::string, std::vector<double>>;

moe::MoeConfig config_of(const GoldenFile& file, const std::string& name) {
  moe::MoeConfig c;
  c.top_k = file.whole(name + ".k");
  c.capacity_factor = file.number(name + ".capacity_factor");
  c.min_capacity = file.whole(name + ".min_capacity");
  c.balance_coefficient = file.number("aux_coefficient");
  const std::string policy = file.text(name + ".policy");
  c.drop = policy == "none"    ? moe::DropPolicy::none
           : policy == "probs" ? moe::DropPolicy::probability
                               : moe::DropPolicy::position;  // also for rts: see survivors_first
  c.renormalise = c.top_k == 1 ? moe::Renormalise::none : moe::Renormalise::survivors;
  c.balance_count = c.top_k > 2 ? moe::BalanceCount::all_choices : moe::BalanceCount::first_choice;
  return c;
}

std::vector<double> rows_in(const std::vector<size_t>& order, const std::vector<double>& values) {
  const size_t width = values.size() / order.size();
  std::vector<double> out(values.size());
  for (size_t i = 0; i < order.size(); ++i) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(order[i] * width), width,
                out.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  return out;
}

// Random token selection with top-1 keeps the tokens with the largest keys of their expert. So does dropping
// by position when the tokens come in the order of falling keys, and a layer does not mind the order.
std::vector<size_t> survivors_first(const GoldenFile& file, const std::vector<double>& x) {
  const std::vector<double> keys = file.doubles("keys"), router = file.doubles("weights.moe.router.weight");
  const auto tokens = static_cast<size_t>(file.shape("keys")[0]);
  const auto experts = static_cast<size_t>(file.shape("keys")[1]);
  const size_t width = x.size() / tokens;
  std::vector<double> key(tokens);
  for (size_t s = 0; s < tokens; ++s) {
    double best = -INFINITY;
    for (size_t e = 0; e < experts; ++e) {
      const double logit = std::inner_product(&x[s * width], &x[s * width] + width, &router[e * width], 0.0);
      if (logit > best) best = logit, key[s] = keys[s * experts + e];
    }
  }
  std::vector<size_t> order(tokens);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] > key[b]; });
  return order;
}

std::vector<size_t> inverse(const std::vector<size_t>& order) {
  std::vector<size_t> place(order.size());
  for (size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
  return place;
}

Tensor tensor_of(OpBench& bench, DType dtype, Shape shape, const std::vector<double>& values) {
  const Tensor t = bench.zeros(dtype, shape);
  visit_float_dtype(t.dtype(), [&]<class T>() {
    for (size_t i = 0; i < values.size(); ++i) t.data<T>()[i] = static_cast<T>(values[i]);
  });
  return t;
}

// Forward and backward of sum(output * r) + aux_coefficient * l_aux on this rank's tokens. Gradients of
// experts that other ranks hold are zeros.
template <class Layer>
Named run(const GoldenFile& file, const std::string& name, DType dtype, Communicator& world) {
  const Shape& experts = file.shape("weights.moe.experts.up.weight");  // [E, F, C]
  const nn::MlpShape mlp{nn::MlpKind::gelu_tanh, experts[2], experts[1], true, 0.02, 0.02};
  const ProcessGroups groups(world, ParallelPlan(world.size(), {world.size()}));
  nn::ParamStore store({.compute = dtype});
  const std::string prefix = "layer.",
                    layer_name = std::is_same_v<Layer, moe::MoeFfn> ? "layer.moe" : "layer";
  Layer layer(store, layer_name, config_of(file, name), {mlp, mlp, experts[0], world.size(), 0}, groups);
  store.finalize();
  load_parameters(store, file, "weights.", prefix);

  const std::string rank = fmt::format("rank{}.", world.rank());
  const std::vector<double> x_values = file.doubles(rank + "x");
  const auto tokens = static_cast<int64_t>(x_values.size()) / mlp.width;
  std::vector<size_t> order(static_cast<size_t>(tokens));
  std::iota(order.begin(), order.end(), size_t{0});
  if (file.text(name + ".policy") == "rts") order = survivors_first(file, x_values);

  OpBench bench;
  Tape& tape = bench.tape();
  const Shape shape{tokens, mlp.width};
  const Var x = tape.variable(tensor_of(bench, dtype, shape, rows_in(order, x_values)));
  const Var y = layer(tape, x, tokens);
  tape.backward(y, tensor_of(bench, dtype, shape, rows_in(order, file.doubles(rank + "r"))));

  Named got;
  got["output"] = rows_in(inverse(order), to_doubles(y.value()));
  got["grad.x"] = rows_in(inverse(order), to_doubles(tape.grad(x)));
  const moe::MoeSums sums = layer.router().stats().read(tape.stream());
  got["l_aux"] = {sums.balance};
  got["exp_counts"] = {sums.counts_before.begin(), sums.counts_before.end()};
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    std::vector<double> whole(static_cast<size_t>(spec.global_shape.numel()));
    const int64_t first = spec.row_begin * (spec.global_shape.numel() / spec.global_shape[0]);
    const std::vector<double> grad = to_doubles(entry.param.grad);
    std::copy(grad.begin(), grad.end(), whole.begin() + first);
    got["grad." + spec.name.substr(prefix.size())] = whole;
  }
  return got;
}

// DeepSpeed's gate works in f32 and its results are stored in f32, so f32 is what f64 can be held to as well.
// Longest path, there and back: the sums over C, F and the tokens of a weight's gradient.
double tolerance(const GoldenFile& file) {
  const Shape& x = file.shape("rank0.x");
  const int64_t hidden = file.shape("weights.mlp.up.bias")[0];
  return random_walk(DType::f32, 2 * (2 * x[2] + hidden) + x[0] * x[1]);
}

void expect_all(const Named& got, const GoldenFile& file, const std::string& prefix) {
  for (const auto& [key, values] : got) {
    if (key == "exp_counts") {
      const std::vector<int64_t> want = file.ints(prefix + key);
      EXPECT_EQ(values, std::vector<double>(want.begin(), want.end())) << prefix + key;
      continue;
    }
    const std::vector<double> want = file.doubles(prefix + key);
    expect_within(values, want, tolerance(file) * largest(want), prefix + key);
  }
}

class DeepSpeedLayers : public testing::TestWithParam<DType> {
 protected:
  OneThread one_thread_;  // waking threads for tiny products takes nearly all the time
  GoldenFile file_ = GoldenFile::committed("deepspeed_layers");
};

TEST_P(DeepSpeedLayers, OutputsAndGradientsAreTheSame) {
  const auto world = make_self_communicator();
  for (const std::string& name : file_.words("cases")) {
    SCOPED_TRACE(name);
    const bool residual = file_.number(name + ".residual") != 0;
    const Named got = residual ? run<moe::ResidualMoeFfn>(file_, name, GetParam(), *world)
                               : run<moe::MoeFfn>(file_, name, GetParam(), *world);
    EXPECT_EQ(got.size(), file_.names(name + ".").size());
    expect_all(got, file_, name + ".");
  }
}

TEST_P(DeepSpeedLayers, SoAreThoseOfExpertsOnTwoRanks) {
  std::mutex mutex;
  Named summed;
  run_on_threads(2, [&](Communicator& world) {
    Named got = run<moe::ResidualMoeFfn>(file_, "ep2", GetParam(), world);
    const std::lock_guard lock(mutex);
    for (auto it = got.begin(); it != got.end();) {
      const auto& [key, values] = *it;
      if (!file_.contains("ep2." + key)) {
        ++it;
        continue;
      }
      std::vector<double>& sum = summed[key];
      sum.resize(values.size());
      std::transform(sum.begin(), sum.end(), values.begin(), sum.begin(), std::plus<>());
      it = got.erase(it);
    }
    EXPECT_EQ(got.size(), 4U) << "output, l_aux, exp_counts and the gradient of x are each rank's own";
    expect_all(got, file_, fmt::format("ep2.rank{}.", world.rank()));
  });
  expect_all(summed, file_, "ep2.");
}

INSTANTIATE_TEST_SUITE_P(Layers, DeepSpeedLayers, testing::Values(DType::f64, DType::f32),
                         [](const auto& test) { return std::string(to_string(test.param)); });

}  // namespace
}  // namespace ziggurat::test
