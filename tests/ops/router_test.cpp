#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/finite_differences.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/router.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using namespace ops;
using test::OpBench;
using Matrix = std::vector<std::vector<double>>;

struct RouterCase {
  int64_t tokens, experts;
  RouterArgs args;
  bool training = true;
  bool bias = false;  // of the choice
};
void PrintTo(const RouterCase& c, std::ostream* os) {
  *os << c.tokens << " tokens, " << c.experts << " experts, top-" << c.args.top_k << ", drop "
      << static_cast<int>(c.args.drop) << ", order " << static_cast<int>(c.args.order) << ", factor "
      << c.args.capacity_factor << ", renormalise " << static_cast<int>(c.args.renormalise) << ", noise "
      << static_cast<int>(c.args.noise) << (c.training ? "" : ", evaluation")
      << (c.args.score == RouterScore::sigmoid ? ", sigmoid" : "") << ", " << c.args.chosen_groups << " of "
      << c.args.expert_groups << " groups" << (c.bias ? ", with a bias" : "") << ", groups of "
      << c.args.group_tokens << " tokens";
}

Matrix to_matrix(const Tensor& t) {
  const auto flat = test::to_doubles(t);
  Matrix m(static_cast<size_t>(t.dim(0)));
  for (size_t s = 0; s < m.size(); ++s) {
    m[s].assign(flat.begin() + static_cast<int64_t>(s) * t.dim(1),
                flat.begin() + static_cast<int64_t>(s + 1) * t.dim(1));
  }
  return m;
}

// What is added to scores for the choice; far enough apart that no choice hangs on rounding.
double bias_of(const RouterCase& c, size_t expert) {
  return c.bias ? 0.05 * static_cast<double>((3 * expert + 1) % 7) : 0;
}

RouterArgs with_bias(OpBench& bench, const RouterCase& c, DType dtype) {
  RouterArgs args = c.args;
  if (!c.bias) return args;
  args.choice_bias = bench.zeros(dtype, {c.experts});
  visit_float_dtype(dtype, [&]<class T>() {
    for (int64_t e = 0; e < c.experts; ++e) {
      args.choice_bias.data<T>()[e] = T(bias_of(c, static_cast<size_t>(e)));
    }
  });
  return args;
}

// The router as DeepSpeed states it: dense [S,E] tables, one pass per question.
struct Reference {
  Matrix p, normalised;                     // scores; and over their sum
  std::vector<std::vector<size_t>> chosen;  // [S][k]
  std::vector<std::vector<size_t>> rows;    // [E] choices s*k+j in slot order, survivors only
  Matrix weights;                           // [S][k]
  double balance = 0, z = 0, entropy = 0;
};

Reference reference(const RouterCase& c, const Matrix& z, const Matrix& keys, const Matrix& gumbel) {
  const auto S = static_cast<size_t>(c.tokens), E = static_cast<size_t>(c.experts);
  const auto k = static_cast<size_t>(c.args.top_k);
  const bool random = c.training && c.args.drop == DropPolicy::random;
  const ChoiceNoise noise = c.training ? c.args.noise : ChoiceNoise::none;
  Reference r;
  for (size_t s = 0; s < S; ++s) {
    double sum = 0;
    for (const double x : z[s]) sum += std::exp(x);
    const bool sigmoid = c.args.score == RouterScore::sigmoid;
    std::vector<double> p, normalised;
    for (const double x : z[s]) p.push_back(sigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x) / sum);
    const double all = std::accumulate(p.begin(), p.end(), 0.0);
    for (const double x : p) normalised.push_back(x / all);
    if (!sigmoid) r.z += std::log(sum) * std::log(sum) / static_cast<double>(S);
    for (const double x : normalised) r.entropy -= x * std::log(x) / static_cast<double>(S);
    // The groups that experts may come from.
    const auto groups = static_cast<size_t>(c.args.expert_groups), size = E / groups;
    std::vector<std::pair<double, size_t>> by_group;
    for (size_t g = 0; g < groups; ++g) {
      std::vector<double> best;
      for (size_t e = g * size; e < (g + 1) * size; ++e) best.push_back(p[e] + bias_of(c, e));
      std::sort(best.rbegin(), best.rend());
      by_group.emplace_back(best[0] + (sigmoid && size > 1 ? best[1] : 0), g);
    }
    std::sort(by_group.rbegin(), by_group.rend());
    std::vector<bool> open(groups);
    for (int64_t g = 0; g < c.args.chosen_groups; ++g) open[by_group[static_cast<size_t>(g)].second] = true;
    std::vector<size_t> chosen;
    for (size_t j = 0; j < k; ++j) {
      std::vector<double> score = c.bias || groups > 1 || sigmoid ? p : z[s];
      for (size_t e = 0; e < E; ++e) score[e] = open[e / size] ? score[e] + bias_of(c, e) : -INFINITY;
      if (noise == ChoiceNoise::rsample || (noise == ChoiceNoise::second_expert && j == 1)) {
        for (size_t e = 0; e < E; ++e) score[e] += gumbel[s][e];
      }
      for (const size_t e : chosen) score[e] = -INFINITY;
      chosen.push_back(static_cast<size_t>(std::max_element(score.begin(), score.end()) - score.begin()));
    }
    r.p.push_back(p);
    r.normalised.push_back(normalised);
    r.chosen.push_back(chosen);
  }

  // Candidates of each expert in slot order, then those that stay.
  const double factor = c.training ? c.args.capacity_factor : c.args.eval_capacity_factor;
  const bool drops = c.args.drop != DropPolicy::none && (c.training || factor > 0);
  const size_t group = c.args.group_tokens > 0 ? static_cast<size_t>(c.args.group_tokens) : S;
  const double share = static_cast<double>(group) / static_cast<double>(E);
  const double wanted = c.args.capacity_rule == CapacityRule::with_top_k
                            ? std::ceil(share * factor * static_cast<double>(k) - 1e-6)
                            : std::nearbyint(share * factor);
  const auto capacity = static_cast<size_t>(std::max(wanted, static_cast<double>(c.args.min_capacity)));
  r.rows.resize(E);
  for (size_t at = 0; at < (S == 0 ? 0 : E * (S / group)); ++at) {
    const size_t e = at / (S / group), first = at % (S / group) * group;
    std::vector<size_t> candidates;
    if (c.args.order == SlotOrder::choice_first) {
      for (size_t j = 0; j < k; ++j)
        for (size_t s = first; s < first + group; ++s)
          if (r.chosen[s][j] == e) candidates.push_back(s * k + j);
    } else {
      for (size_t i = first * k; i < (first + group) * k; ++i)
        if (r.chosen[i / k][i % k] == e) candidates.push_back(i);
    }
    std::vector<size_t> best = candidates;
    if (random) {
      std::stable_sort(best.begin(), best.end(),
                       [&](size_t a, size_t b) { return keys[a / k][e] > keys[b / k][e]; });
    } else if (c.training && c.args.drop == DropPolicy::probability) {
      std::stable_sort(best.begin(), best.end(),
                       [&](size_t a, size_t b) { return r.p[a / k][e] > r.p[b / k][e]; });
    }
    if (drops && best.size() > capacity) best.resize(capacity);
    for (const size_t i : candidates)
      if (std::find(best.begin(), best.end(), i) != best.end()) r.rows[e].push_back(i);
  }

  for (size_t s = 0; s < S; ++s) {
    std::vector<double> w(k), all(k);
    for (size_t j = 0; j < k; ++j) {
      const size_t e = r.chosen[s][j];
      all[j] = r.p[s][e];
      if (std::find(r.rows[e].begin(), r.rows[e].end(), s * k + j) != r.rows[e].end()) w[j] = all[j];
    }
    const auto& counted = c.args.renormalise == Renormalise::chosen ? all : w;
    const double sum = std::accumulate(counted.begin(), counted.end(), 0.0);
    if (c.args.renormalise != Renormalise::none)
      for (double& x : w) x /= std::max(sum, 1e-30);
    for (double& x : w) x *= c.args.weight_scale;
    r.weights.push_back(w);
  }

  const size_t length = c.args.balance_scope == BalanceScope::sequence
                            ? static_cast<size_t>(c.args.sequence_length)
                        : c.args.balance_scope == BalanceScope::group ? group
                                                                      : S;
  const size_t counted = c.args.balance_count == BalanceCount::first_choice ? 1 : k;
  for (size_t begin = 0; begin < S; begin += length) {
    for (size_t e = 0; e < E; ++e) {
      double me = 0, ce = 0;
      for (size_t s = begin; s < begin + length; ++s) {
        me += r.normalised[s][e] / static_cast<double>(length);
        for (size_t j = 0; j < counted; ++j)
          ce += (r.chosen[s][j] == e) / static_cast<double>(length * counted);
      }
      r.balance += me * ce * static_cast<double>(E) * static_cast<double>(length) / static_cast<double>(S);
    }
  }
  return r;
}

const kernels::RouterLosses& losses_of(const Routing& routing) {
  return *static_cast<const kernels::RouterLosses*>(routing.losses.raw());
}

class Router : public testing::TestWithParam<RouterCase> {};

TEST_P(Router, EqualsTheDenseReference) {
  RouterCase c = GetParam();
  for (const DType dtype : {DType::f32, DType::f64}) {
    OpBench bench;
    bench.micro_batch.training = c.training;
    bench.tape().begin(bench.micro_batch);
    const Tensor logits = bench.tensor("logits", dtype, {c.tokens, c.experts});
    const Tensor keys = bench.tensor("keys", DType::f32, {c.tokens, c.experts}, 0.1, 0.5);
    const Tensor gumbel = bench.tensor("gumbel", DType::f32, {c.tokens, c.experts});
    c.args = with_bias(bench, c, dtype);
    c.args.keys = keys.data<float>(), c.args.gumbel = gumbel.data<float>();
    const Routing got = route(bench.tape(), bench.tape().variable(logits), c.args);
    const Reference want = reference(c, to_matrix(logits), to_matrix(keys), to_matrix(gumbel));

    const auto k = static_cast<size_t>(c.args.top_k);
    const int32_t *expert = got.expert.data<int32_t>(), *counts = got.counts.data<int32_t>();
    const int32_t *token_of_row = got.token_of_row.data<int32_t>(),
                  *choice_of_row = got.choice_of_row.data<int32_t>();
    std::vector<double> weights;
    for (size_t i = 0; i < static_cast<size_t>(c.tokens) * k; ++i) {
      ASSERT_EQ(expert[i], static_cast<int32_t>(want.chosen[i / k][i % k])) << "choice " << i;
      weights.push_back(want.weights[i / k][i % k]);
    }
    test::expect_close(got.weights.value(), weights, c.experts, 1, "weights");
    int64_t row = 0;
    std::vector<int32_t> row_of_choice(static_cast<size_t>(c.tokens) * k, -1);
    for (size_t e = 0; e < want.rows.size(); ++e) {
      ASSERT_EQ(got.offsets.data<int32_t>()[e], row) << "expert " << e;
      ASSERT_EQ(counts[e], static_cast<int64_t>(want.rows[e].size())) << "expert " << e;
      ASSERT_LE(counts[e], got.capacity);
      for (const size_t choice : want.rows[e]) {
        ASSERT_EQ(token_of_row[row], static_cast<int32_t>(choice / k)) << "row " << row;
        ASSERT_EQ(choice_of_row[row], static_cast<int32_t>(choice % k)) << "row " << row;
        row_of_choice[choice] = static_cast<int32_t>(row++);
      }
    }
    ASSERT_EQ(got.rows, row);
    ASSERT_EQ(got.offsets.data<int32_t>()[c.experts], row);
    ASSERT_EQ(got.token_of_row.shape(), Shape{row});
    ASSERT_EQ(got.choice_of_row.shape(), Shape{row});
    const int32_t* got_rows = got.row_of_choice.data<int32_t>();
    EXPECT_EQ(std::vector<int32_t>(got_rows, got_rows + row_of_choice.size()), row_of_choice);
    std::vector<int32_t> before(static_cast<size_t>(c.experts));
    for (const auto& chosen : want.chosen)
      for (const size_t e : chosen) ++before[e];
    const int32_t* got_before = got.counts_before.data<int32_t>();
    EXPECT_EQ(std::vector<int32_t>(got_before, got_before + c.experts), before);
    const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-12;
    const kernels::RouterLosses& losses = losses_of(got);
    EXPECT_NEAR(losses.balance, want.balance, tolerance * static_cast<double>(c.experts));
    EXPECT_NEAR(losses.z, want.z, tolerance * std::max(1.0, want.z));
    EXPECT_NEAR(losses.entropy, want.entropy, tolerance * 4);
  }
}

TEST_P(Router, WeightGradientsEqualFiniteDifferences) {
  const RouterCase c = GetParam();
  if (c.tokens > 16 || !c.training) GTEST_SKIP() << "forward-only case";
  OpBench bench;
  const RouterArgs args = with_bias(bench, c, DType::f64);
  test::expect_gradients(
      bench, {bench.tensor("logits", DType::f64, {c.tokens, c.experts})}, {},
      [&](Tape& tape, const std::vector<Var>& v) { return route(tape, v[0], args).weights; });
}

// The losses' gradients reach the logits also when nobody uses the weights.
TEST_P(Router, LossGradientsEqualFiniteDifferences) {
  RouterCase c = GetParam();
  if (c.tokens > 16 || !c.training) GTEST_SKIP() << "forward-only case";
  OpBench bench;
  const Tensor logits = bench.tensor("logits", DType::f64, {c.tokens, c.experts});
  c.args = with_bias(bench, c, DType::f64);
  c.args.balance_coefficient = 0.3;
  c.args.z_coefficient = c.args.score == RouterScore::sigmoid ? 0 : 0.7;
  const auto loss = [&] {
    bench.tape().begin(bench.micro_batch);
    const Routing r = route(bench.tape(), bench.tape().variable(logits), c.args);
    return 0.3 * losses_of(r).balance + 0.7 * losses_of(r).z;
  };
  bench.tape().begin(bench.micro_batch);
  const Var z = bench.tape().variable(logits);
  route(bench.tape(), z, c.args);
  bench.tape().backward();
  ASSERT_TRUE(bench.tape().grad(z));
  test::expect_central_differences(logits, test::to_doubles(bench.tape().grad(z)), loss, 1e-6);
}

RouterArgs args(int64_t top_k, DropPolicy drop, double factor, Renormalise renormalise = Renormalise::none,
                ChoiceNoise noise = ChoiceNoise::none) {
  RouterArgs a;
  a.top_k = top_k, a.drop = drop, a.capacity_factor = factor, a.min_capacity = 1;
  a.renormalise = renormalise, a.noise = noise;
  return a;
}
RouterArgs with(RouterArgs a, const std::function<void(RouterArgs&)>& change) {
  change(a);
  return a;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Router,
    testing::Values(
        RouterCase{0, 3, args(1, DropPolicy::random, 1)},
        RouterCase{0, 4,
                   with(args(2, DropPolicy::none, 1),
                        [](auto& a) { a.balance_scope = BalanceScope::sequence, a.sequence_length = 3; })},
        RouterCase{1, 1, args(1, DropPolicy::random, 1)}, RouterCase{1, 5, args(2, DropPolicy::position, 1)},
        RouterCase{9, 4, args(1, DropPolicy::none, 1)}, RouterCase{9, 4, args(1, DropPolicy::random, 1)},
        RouterCase{9, 4, args(1, DropPolicy::random, 1, Renormalise::none, ChoiceNoise::rsample)},
        RouterCase{3, 4, with(args(1, DropPolicy::random, 1), [](auto& a) { a.min_capacity = 8; })},
        RouterCase{13, 5,
                   args(2, DropPolicy::position, 0.6, Renormalise::survivors, ChoiceNoise::second_expert)},
        RouterCase{13, 5, args(2, DropPolicy::random, 0.6, Renormalise::chosen)},
        RouterCase{13, 5, args(3, DropPolicy::probability, 0.5, Renormalise::survivors)},
        RouterCase{12, 6,
                   with(args(3, DropPolicy::position, 0.7, Renormalise::survivors),
                        [](auto& a) {
                          a.order = SlotOrder::token_first;
                          a.balance_count = BalanceCount::all_choices;
                        })},
        RouterCase{12, 4,
                   with(args(2, DropPolicy::none, 1, Renormalise::chosen),
                        [](auto& a) {
                          a.balance_scope = BalanceScope::sequence;
                          a.sequence_length = 3;
                          a.balance_count = BalanceCount::all_choices;
                        })},
        RouterCase{14, 4,
                   with(args(2, DropPolicy::position, 1.25),
                        [](auto& a) { a.capacity_rule = CapacityRule::without_top_k; })},
        RouterCase{12, 6,  // capacity in groups of tokens, as OpenMoE's
                   with(args(2, DropPolicy::position, 1.25),
                        [](auto& a) {
                          a.capacity_rule = CapacityRule::without_top_k, a.group_tokens = 4;
                          a.balance_count = BalanceCount::all_choices, a.balance_scope = BalanceScope::group;
                        })},
        RouterCase{528, 4,
                   with(args(2, DropPolicy::random, 0.7),
                        [](auto& a) { a.group_tokens = 132, a.order = SlotOrder::token_first; })},
        RouterCase{13, 5,
                   with(args(2, DropPolicy::none, 1), [](auto& a) { a.score = RouterScore::sigmoid; })},
        RouterCase{12, 6,  // DeepSeek-V3's
                   with(args(3, DropPolicy::none, 1, Renormalise::chosen),
                        [](auto& a) {
                          a.score = RouterScore::sigmoid, a.weight_scale = 2.5;
                          a.expert_groups = 3, a.chosen_groups = 2;
                          a.balance_scope = BalanceScope::sequence, a.sequence_length = 4;
                          a.balance_count = BalanceCount::all_choices;
                        }),
                   true, true},
        RouterCase{12, 8,  // DeepSeek-V2's
                   with(args(2, DropPolicy::probability, 0.7),
                        [](auto& a) { a.expert_groups = 4, a.chosen_groups = 1; })},
        RouterCase{9, 4, args(1, DropPolicy::position, 1, Renormalise::survivors), true, true},
        RouterCase{
            517, 16,
            with(args(4, DropPolicy::none, 1, Renormalise::chosen),
                 [](auto& a) { a.score = RouterScore::sigmoid, a.expert_groups = 16, a.chosen_groups = 6; }),
            true, true},
        RouterCase{517, 8, args(1, DropPolicy::random, 1)},
        RouterCase{517, 8, args(2, DropPolicy::random, 1, Renormalise::none, ChoiceNoise::second_expert),
                   false},
        RouterCase{517, 8, with(args(2, DropPolicy::random, 1), [](auto& a) { a.eval_capacity_factor = 1; }),
                   false}));

TEST(Router, ItsOwnNoiseIsAFunctionOfSeedLayerAndMicroBatch) {
  OpBench bench;
  const int64_t S = 61, E = 5;
  const Tensor logits = bench.tensor("logits", DType::f32, {S, E});
  RouterArgs a = args(1, DropPolicy::random, 1, Renormalise::none, ChoiceNoise::rsample);
  a.layer = 7;
  const MicroBatch& m = bench.micro_batch;
  const Philox keys(m.seed, Purpose::token_selection, 7, m.moment()),
      gumbel(m.seed, Purpose::router_gumbel, 7, m.moment());
  std::vector<float> key_values, gumbel_values;
  for (uint64_t i = 0; i < static_cast<uint64_t>(S * E); ++i) {
    key_values.push_back(keys.uniform(i));
    gumbel_values.push_back(-std::log(-std::log(gumbel.uniform(i))));
  }
  const auto rows = [&](const RouterArgs& r) {
    const Routing routing = route(bench.tape(), bench.tape().constant(logits), r);
    const int32_t* row_of_choice = routing.row_of_choice.data<int32_t>();
    return std::vector<int32_t>(row_of_choice, row_of_choice + S);
  };
  const auto own = rows(a);
  RouterArgs explicit_noise = a;
  explicit_noise.keys = key_values.data(), explicit_noise.gumbel = gumbel_values.data();
  EXPECT_EQ(own, rows(explicit_noise));
  set_thread_count(1);
  EXPECT_EQ(own, rows(a));
  set_thread_count(available_cores());
  a.layer = 8;
  EXPECT_NE(own, rows(a));
}

// Fractions that the caller replaced (those of the global batch) are the ones that backward uses.
TEST(Router, ReplacedFractionsDriveTheBalanceGradient) {
  OpBench bench;
  const Tensor logits = bench.tensor("logits", DType::f64, {4, 2});
  RouterArgs a = args(1, DropPolicy::none, 1);
  a.balance_coefficient = 1, a.balance_scope = BalanceScope::global_batch;
  const Var z = bench.tape().variable(logits);
  const Routing r = route(bench.tape(), z, a);
  r.fraction.data<double>()[0] = r.fraction.data<double>()[1] =
      0.5;  // perfectly balanced: E sum f p is constant
  bench.tape().backward();
  for (const double g : test::to_doubles(bench.tape().grad(z))) EXPECT_NEAR(g, 0, 1e-15);
}

// The micro-batches of a step add up, a new step starts anew, and the balance follows.
TEST(Router, FractionsOfAStepAreThoseOfAllItsMicroBatches) {
  OpBench bench;
  const auto alone = make_self_communicator();
  RouterArgs a = args(1, DropPolicy::none, 1);
  a.balance_scope = BalanceScope::global_batch;
  const Tensor of_step = bench.tensor("whatever was there", DType::f64, {3});
  const auto fractions = [&](const std::string& name, bool first) {
    const Routing r = route(bench.tape(), bench.tape().constant(bench.tensor(name, DType::f32, {8, 3})), a);
    const std::vector<double> own = test::to_doubles(r.fraction), p = test::to_doubles(r.mean_probability);
    use_fractions_of_step(bench.tape(), r, *alone, of_step, first);
    const std::vector<double> all = test::to_doubles(r.fraction);
    double balance = 0;
    for (size_t e = 0; e < 3; ++e) balance += 3 * all[e] * p[e];
    EXPECT_NEAR(losses_of(r).balance, balance, 1e-12);
    return std::pair(own, all);
  };
  const auto [one, after_one] = fractions("one", true);
  const auto [two, after_two] = fractions("two", false);
  const auto [three, after_three] = fractions("three", true);
  EXPECT_NE(one, two);
  for (size_t e = 0; e < 3; ++e) {
    EXPECT_DOUBLE_EQ(after_one[e], one[e]);
    EXPECT_DOUBLE_EQ(after_two[e], (one[e] + two[e]) / 2);
    EXPECT_DOUBLE_EQ(after_three[e], three[e]);
  }
}

TEST(Router, StatisticsAddUp) {
  OpBench bench;
  const Tensor sums = bench.zeros(DType::f64, {kernels::router_sums_size(3)});
  double z = 0, balance = 0, entropy = 0, latest_balance = 0, latest_z = 0, dropped = 0;
  std::vector<double> counts(6, 0.0);
  for (const int64_t tokens : {7, 9}) {
    const Tensor logits = bench.tensor("logits", DType::f32, {tokens, 3});
    const Routing r = route(bench.tape(), bench.tape().constant(logits), args(2, DropPolicy::position, 0.7));
    add_statistics(bench.tape(), r, 0.5, 0.25, sums);
    const kernels::RouterLosses& of = losses_of(r);
    z += of.z, balance += of.balance, entropy += of.entropy * static_cast<double>(tokens);
    latest_balance = 0.5 * of.balance, latest_z = 0.25 * of.z;
    dropped += static_cast<double>(2 * tokens - r.rows);
    for (size_t e = 0; e < 3; ++e) {
      counts[e] += r.counts_before.data<int32_t>()[e];
      counts[3 + e] += r.counts.data<int32_t>()[e];
    }
  }
  EXPECT_GT(dropped, 0);
  const auto& got = *static_cast<const kernels::RouterSums*>(sums.raw());
  EXPECT_EQ(got.tokens, 16);
  EXPECT_EQ(got.choices, 32);
  EXPECT_EQ(got.micro_batches, 2);
  EXPECT_DOUBLE_EQ(got.entropy, entropy);
  EXPECT_DOUBLE_EQ(got.balance, balance);
  EXPECT_DOUBLE_EQ(got.z, z);
  EXPECT_EQ(got.latest_balance, latest_balance);
  EXPECT_EQ(got.latest_z, latest_z);
  EXPECT_EQ(test::to_doubles(sums.rows(kernels::router_sums_size(0), sums.dim(0))), counts);
}

// arXiv 2408.15664, algorithm 1: by the sign of how far a load is from the mean, not by how much.
TEST(Router, TheBiasMovesTowardsEvenLoads) {
  const auto two = [](Communicator& world) {
    OpBench bench;
    const Tensor sums = bench.zeros(DType::f64, {kernels::router_sums_size(4)});
    const Tensor bias = bench.zeros(DType::f32, {4}), loads = bench.zeros(DType::f64, {4});
    const double counts[2][4] = {{5, 1, 2, 0}, {3, 1, 4, 0}};  // together 8, 2, 6, 0: the mean is 4
    for (size_t e = 0; e < 4; ++e) {
      sums.data<double>()[kernels::router_sums_size(0) + static_cast<int64_t>(e)] =
          counts[static_cast<size_t>(world.rank())][e];
      bias.data<float>()[e] = 1.0f;
    }
    sum_loads(sums, loads, world, bench.tape().stream());
    move_balance_bias(loads, 0.25, bias, bench.tape().stream());
    EXPECT_EQ(test::to_doubles(loads), (std::vector<double>{8, 2, 6, 0}));
    EXPECT_EQ(test::to_doubles(bias), (std::vector<double>{0.75, 1.25, 0.75, 1.25}));
    for (size_t e = 0; e < 4; ++e) loads.data<double>()[e] = 7;
    move_balance_bias(loads, 0.25, bias, bench.tape().stream());
    EXPECT_EQ(test::to_doubles(bias), (std::vector<double>{0.75, 1.25, 0.75, 1.25})) << "even already";
  };
  run_on_threads(2, two);
}

TEST(Router, CapacityIsDeepSpeeds) {
  const RouterArgs a = with(args(1, DropPolicy::random, 1), [](auto& x) { x.min_capacity = 4; });
  EXPECT_EQ(expert_capacity(a, 1.0, 8192, 128), 64);
  EXPECT_EQ(expert_capacity(a, 1.1, 20, 2), 11);  // 10 * 1.1 in f32; in f64 it would round up to 12
  EXPECT_EQ(expert_capacity(a, 1.0, 16, 8), 4);   // min_capacity
  EXPECT_EQ(expert_capacity(a, 1.0, 3, 8), 3);    // never more than the tokens
  EXPECT_EQ(expert_capacity(a, 1e30, 100, 8), 100);
}

TEST(RouterMisuse, OfScoresAndGroupsIsNamed) {
  OpBench bench;
  const Var logits = bench.tape().constant(bench.tensor("z", DType::f32, {6, 6}));
  const RouterArgs good = args(2, DropPolicy::none, 1);
  const auto refused = [&](const std::function<void(RouterArgs&)>& change) {
    EXPECT_THROW(route(bench.tape(), logits, with(good, change)), Error);
  };
  refused([](auto& a) { a.expert_groups = 4; });
  refused([](auto& a) { a.expert_groups = 3, a.chosen_groups = 4; });
  refused([](auto& a) { a.expert_groups = 6, a.chosen_groups = 1; });
  refused([&](auto& a) { a.choice_bias = bench.zeros(DType::f32, {5}); });
  refused([&](auto& a) { a.choice_bias = bench.zeros(DType::f64, {6}); });
  refused([](auto& a) { a.score = RouterScore::sigmoid, a.z_coefficient = 0.1; });
  refused([](auto& a) { a.score = RouterScore::sigmoid, a.noise = ChoiceNoise::second_expert; });
}

TEST(RouterMisuse, IsNamed) {
  OpBench bench;
  const Var logits = bench.tape().constant(bench.tensor("z", DType::f32, {6, 3}));
  const Var half = bench.tape().constant(bench.tensor("z", DType::bf16, {6, 3}));
  const RouterArgs good = args(1, DropPolicy::none, 1);
  EXPECT_NO_THROW(route(bench.tape(), logits, good));
  EXPECT_THROW(route(bench.tape(), half, good), Error);
  EXPECT_THROW(route(bench.tape(), logits, args(0, DropPolicy::none, 1)), Error);
  EXPECT_THROW(route(bench.tape(), logits, args(4, DropPolicy::none, 1)), Error);
  EXPECT_THROW(route(bench.tape(), logits, args(1, DropPolicy::random, 0)), Error);
  EXPECT_THROW(
      route(bench.tape(), logits, args(2, DropPolicy::none, 1, Renormalise::none, ChoiceNoise::rsample)),
      Error);
  EXPECT_THROW(route(bench.tape(), logits,
                     args(1, DropPolicy::none, 1, Renormalise::none, ChoiceNoise::second_expert)),
               Error);
  EXPECT_THROW(route(bench.tape(), logits,
                     with(good,
                          [](auto& a) {
                            a.balance_scope = BalanceScope::sequence;
                            a.sequence_length = 4;
                          })),
               Error);
}

}  // namespace
}  // namespace ziggurat
