// Lion, Muon and Adafactor against their formulas in double, and what they have in common.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/optim/clip_groups.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/optim/rules.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

using Values = std::vector<double>;

// Matrices of both shapes, experts, vectors; long enough for sums of rows and columns.
constexpr int64_t kLong = 9;
void add_parameters(nn::ParamStore& store) {
  store.add({.name = "layers.0.wide", .global_shape = {kLong, 14}, .init = nn::Init::normal(0.5)});
  store.add({.name = "layers.0.tall", .global_shape = {20, kLong}, .init = nn::Init::normal(0.5)});
  store.add({.name = "layers.0.thin", .global_shape = {3, 40}, .init = nn::Init::normal(0.5)});
  store.add({.name = "layers.0.experts", .global_shape = {2, 10, 12}, .init = nn::Init::normal(0.5)});
  store.add({.name = "layers.0.norm",
             .global_shape = {33},
             .init = nn::Init::ones(),
             .matrix = false,
             .decay = false});
  store.add({.name = "embed.token.weight", .global_shape = {16, kLong}, .init = nn::Init::normal(0.5)});
}

OptimizerConfig config_of(OptimizerKind kind) {
  OptimizerConfig config;
  config.kind = kind;
  config.adafactor.least_factored = kLong;
  return config;
}

double gradient_of(const nn::ParamSpec& spec, int64_t step, int64_t element) {
  return Philox(3, Purpose::test, hash_name(spec.name), static_cast<uint64_t>(step))
      .normal(static_cast<uint64_t>(element));
}

// Masters after some updates, by parameter, with gradients that are functions of name, step and element.
constexpr int64_t kSteps = 4;
constexpr double kLr = 0.02;
std::map<std::string, Values> after_updates(const OptimizerConfig& config, DType compute,
                                            std::map<std::string, Values>* first = nullptr) {
  const auto world = make_self_communicator();
  const ProcessGroups groups(*world, ParallelPlan(1, {}));
  nn::ParamStore store({.compute = compute});
  add_parameters(store);
  store.finalize();
  Optimizer optimizer(store, groups, config);
  Arena workspace("workspace", 1 << 24);
  Stream stream;
  const auto masters = [&] {
    std::map<std::string, Values> all;
    for (const nn::ParamEntry& entry : store.entries()) {
      all[entry.spec.name] = to_doubles(optimizer.state().master(entry));
    }
    return all;
  };
  if (first != nullptr) *first = masters();
  for (int64_t step = 1; step <= kSteps; ++step) {
    double squares = 0;
    for (const nn::ParamEntry& entry : store.entries()) {
      visit_float_dtype(entry.param.grad.dtype(), [&]<class T>() {
        for (int64_t i = 0; i < entry.numel; ++i) {
          const double g = gradient_of(entry.spec, step, i);
          entry.param.grad.data<T>()[i] = T(g);
          squares += g * g;
        }
      });
    }
    optimizer.update(kLr, Tensor(&squares, DType::f64, {1}), {}, workspace, stream);
  }
  for (const nn::ParamEntry& entry : store.entries()) {
    if (const Tensor rounded = optimizer.state().rounded(entry)) {
      const Values exact = to_doubles(optimizer.state().master(entry)), values = to_doubles(rounded);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_EQ(values[i], static_cast<double>(static_cast<float>(bf16(static_cast<float>(exact[i])))));
      }
    }
  }
  return masters();
}

// The clip factor of a step, from all gradients.
double clip_factor(const OptimizerConfig& config, const std::vector<const nn::ParamSpec*>& specs,
                   int64_t step) {
  double squares = 0;
  for (const nn::ParamSpec* spec : specs) {
    for (int64_t i = 0; i < spec->global_shape.numel(); ++i) {
      const double g = gradient_of(*spec, step, i);
      squares += g * g;
    }
  }
  return std::min(1.0, config.clip_grad / std::sqrt(squares));
}

double rms(const Values& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

Values times(const Values& a, const Values& b, int64_t n, int64_t k, int64_t m) {
  Values c(static_cast<size_t>(n * m), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      for (int64_t l = 0; l < k; ++l) {
        c[static_cast<size_t>(i * m + j)] +=
            a[static_cast<size_t>(i * k + l)] * b[static_cast<size_t>(l * m + j)];
      }
    }
  }
  return c;
}

Values transposed(const Values& a, int64_t n, int64_t m) {
  Values t(a.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) t[static_cast<size_t>(j * n + i)] = a[static_cast<size_t>(i * m + j)];
  }
  return t;
}

// One matrix [rows, cols] under each rule, written from the papers.
struct Reference {
  const OptimizerConfig& config;
  int64_t rows, cols;
  bool decays;
  Values p;
  Values m = Values(p.size(), 0.0), v = Values(p.size(), 0.0);
  Values row = Values(static_cast<size_t>(rows), 0.0), col = Values(static_cast<size_t>(cols), 0.0);

  double decay() const { return decays ? config.weight_decay : 0; }

  void lion(const Values& g) {
    for (size_t i = 0; i < p.size(); ++i) {
      const double u = config.beta1 * m[i] + (1 - config.beta1) * g[i];
      p[i] -= kLr * ((u > 0 ? 1 : u < 0 ? -1 : 0) + decay() * p[i]);
      m[i] = config.beta2 * m[i] + (1 - config.beta2) * g[i];
    }
  }

  void adamw(const Values& g, int64_t t) {
    for (size_t i = 0; i < p.size(); ++i) {
      m[i] = config.beta1 * m[i] + (1 - config.beta1) * g[i];
      v[i] = config.beta2 * v[i] + (1 - config.beta2) * g[i] * g[i];
      const double m_hat = m[i] / (1 - std::pow(config.beta1, t)),
                   v_hat = v[i] / (1 - std::pow(config.beta2, t));
      p[i] -= kLr * (decay() * p[i] + m_hat / (std::sqrt(v_hat) + config.eps));
    }
  }

  void muon(const Values& g) {
    Values u(p.size());
    for (size_t i = 0; i < p.size(); ++i) {
      m[i] = config.muon.momentum * m[i] + g[i];
      u[i] = config.muon.nesterov ? g[i] + config.muon.momentum * m[i] : m[i];
    }
    const double size = rms(u) * std::sqrt(static_cast<double>(u.size())) + 1e-7;
    for (double& x : u) x /= size;
    int64_t n = rows, k = cols;
    if (rows > cols) u = transposed(u, rows, cols), std::swap(n, k);
    for (int64_t i = 0; i < config.muon.iterations; ++i) {
      const Values s = times(u, transposed(u, n, k), n, k, n), s2 = times(s, s, n, n, n);
      Values b(s.size());
      for (size_t e = 0; e < s.size(); ++e) b[e] = -4.7750 * s[e] + 2.0315 * s2[e];
      const Values bu = times(b, u, n, n, k);
      for (size_t e = 0; e < u.size(); ++e) u[e] = 3.4445 * u[e] + bu[e];
    }
    if (rows > cols) u = transposed(u, n, k);
    const auto r = static_cast<double>(rows), c = static_cast<double>(cols);
    const double scale = config.muon.scale == MuonScale::adamw ? 0.2 * std::sqrt(std::max(r, c))
                                                               : std::sqrt(std::max(1.0, r / c));
    for (size_t i = 0; i < p.size(); ++i) p[i] -= kLr * (decay() * p[i] + scale * u[i]);
  }

  void adafactor(const Values& g, int64_t t, bool factored) {
    const double beta = 1 - std::pow(static_cast<double>(t), -config.adafactor.decay_exponent);
    Values u(p.size());
    if (factored) {
      double mean = 0;
      Values row_now(row.size(), 0.0), col_now(col.size(), 0.0);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) {
          const double s = std::pow(g[static_cast<size_t>(i * cols + j)], 2) + 1e-30;
          row_now[static_cast<size_t>(i)] += s / static_cast<double>(cols);
          col_now[static_cast<size_t>(j)] += s / static_cast<double>(rows);
        }
      }
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = beta * row[i] + (1 - beta) * row_now[i];
        mean += row[i] / static_cast<double>(rows);
      }
      for (size_t j = 0; j < col.size(); ++j) col[j] = beta * col[j] + (1 - beta) * col_now[j];
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) {
          const auto e = static_cast<size_t>(i * cols + j);
          u[e] = g[e] / std::sqrt(row[static_cast<size_t>(i)] * col[static_cast<size_t>(j)] / mean);
        }
      }
    } else {
      for (size_t i = 0; i < p.size(); ++i) {
        v[i] = beta * v[i] + (1 - beta) * (g[i] * g[i] + 1e-30);
        u[i] = g[i] / std::sqrt(v[i]);
      }
    }
    const double clip = std::max(1.0, rms(u) / config.adafactor.clip);
    const double scale = std::max(config.adafactor.least_scale, rms(p));
    for (size_t i = 0; i < p.size(); ++i) p[i] -= kLr * (decay() * p[i] + scale * u[i] / clip);
  }
};

void expect_formula(const OptimizerConfig& config, DType compute, double tolerance) {
  std::map<std::string, Values> first;
  const std::map<std::string, Values> got = after_updates(config, compute, &first);
  nn::ParamStore store({.compute = compute, .device = Device::meta});
  add_parameters(store);
  store.finalize();
  std::vector<const nn::ParamSpec*> specs;
  for (const nn::ParamEntry& entry : store.entries()) specs.push_back(&entry.spec);
  for (const nn::ParamSpec* spec : specs) {
    const Shape& shape = spec->global_shape;
    const int64_t cols = shape[shape.rank() - 1], rows = shape.rank() == 1 ? 1 : shape[shape.rank() - 2];
    const int64_t size = rows * cols;
    for (int64_t matrix = 0; matrix < shape.numel() / size; ++matrix) {
      const auto at = static_cast<ptrdiff_t>(matrix * size);
      const auto part = [&](const Values& all) {
        return Values(all.begin() + at, all.begin() + at + static_cast<ptrdiff_t>(size));
      };
      Reference reference{config, rows, cols, spec->decay, part(first.at(spec->name))};
      for (int64_t t = 1; t <= kSteps; ++t) {
        Values g;
        for (int64_t i = 0; i < size; ++i) {
          g.push_back(clip_factor(config, specs, t) * gradient_of(*spec, t, matrix * size + i));
        }
        const bool plain = !spec->matrix || spec->name.starts_with("embed.");
        switch (config.kind) {
          case OptimizerKind::adamw:
            reference.adamw(g, t);
            break;
          case OptimizerKind::lion:
            reference.lion(g);
            break;
          case OptimizerKind::muon:
            plain ? reference.adamw(g, t) : reference.muon(g);
            break;
          case OptimizerKind::adafactor:
            reference.adafactor(g, t, spec->matrix && rows >= kLong && cols >= kLong);
        }
      }
      expect_within(part(got.at(spec->name)), reference.p, tolerance, spec->name);
    }
  }
}

class Rules : public ::testing::TestWithParam<OptimizerKind> {};

TEST_P(Rules, FollowTheirFormulas) {
  const OptimizerConfig config = config_of(GetParam());
  expect_formula(config, DType::f64, 1e-10);
  expect_formula(config, DType::f32, 2e-5);
  expect_formula(config, DType::bf16, 2e-5);  // masters are f32
}

TEST_P(Rules, HaveNoMemoryOfThreads) {
  const OptimizerConfig config = config_of(GetParam());
  const auto several = after_updates(config, DType::f32);
  const OneThread one;
  EXPECT_EQ(after_updates(config, DType::f32), several);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Rules,
                         testing::Values(OptimizerKind::adamw, OptimizerKind::lion, OptimizerKind::muon,
                                         OptimizerKind::adafactor),
                         [](const auto& kind) { return enum_text(kind.param); });

TEST(Muon, HasItsOptions) {
  OptimizerConfig config = config_of(OptimizerKind::muon);
  config.muon = {.momentum = 0.8, .nesterov = false, .iterations = 3, .scale = MuonScale::shape};
  expect_formula(config, DType::f64, 1e-10);
}

TEST(Adafactor, HasItsOptions) {
  OptimizerConfig config = config_of(OptimizerKind::adafactor);
  config.adafactor = {.decay_exponent = 0.5, .clip = 0.25, .least_scale = 0.7, .least_factored = kLong};
  expect_formula(config, DType::f64, 1e-10);
}

TEST(Rules, KeepWhatTheyNeed) {
  const auto names = [](OptimizerKind kind, const char* parameter) {
    nn::ParamStore store({.device = Device::meta});
    add_parameters(store);
    store.finalize();
    std::vector<std::string> all;
    for (const MomentSpec& m : moments_for(config_of(kind), store.find(parameter).spec))
      all.push_back(m.name);
    return all;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(OptimizerKind::lion, "layers.0.wide"), Names{"lion.m"});
  EXPECT_EQ(names(OptimizerKind::muon, "layers.0.experts"), Names{"muon.m"});
  EXPECT_EQ(names(OptimizerKind::muon, "embed.token.weight"), (Names{"adam.m", "adam.v"}));
  EXPECT_EQ(names(OptimizerKind::muon, "layers.0.norm"), (Names{"adam.m", "adam.v"}));
  EXPECT_EQ(names(OptimizerKind::adafactor, "layers.0.experts"), (Names{"adafactor.rows", "adafactor.cols"}));
  EXPECT_EQ(names(OptimizerKind::adafactor, "layers.0.thin"), Names{"adafactor.v"});
}

TEST(Rules, FactoredMomentsAreTensorsOfTheirOwn) {
  run_on_threads(2, [](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(2, {2}));
    nn::ParamStore store({});
    const int64_t begin = 2 * world.rank();
    store.add({.name = "experts",
               .global_shape = {4, 10, 12},
               .init = nn::Init::normal(1),
               .row_begin = begin,
               .row_end = begin + 2,
               .expert_parallel = 2});
    store.finalize();
    const OptimizerConfig config = config_of(OptimizerKind::adafactor);
    const OptimizerState state(store, groups,
                               {[&](const nn::ParamSpec& spec) { return moments_for(config, spec); }});
    const auto& moments = state.moments(store.find("experts"));
    ASSERT_EQ(moments.size(), 2u);
    EXPECT_EQ(moments[0].global_shape, (Shape{4, 10}));
    EXPECT_EQ(moments[0].first, 10 * begin);
    EXPECT_EQ(moments[0].held.numel(), 20);
    EXPECT_EQ(moments[1].global_shape, (Shape{4, 12}));
    EXPECT_EQ(moments[1].first, 12 * begin);
    EXPECT_EQ(state.bytes_of_moments(), 4 * (20 + 24));
  });
}

// A group's gradient is scaled by its own norm, whatever the others' are; a step that is none for one is none
// for all.
TEST(ClipGroups, AreUpdatesByGradientsOfTheirOwnScale) {
  for (const OptimizerKind kind :
       {OptimizerKind::adamw, OptimizerKind::lion, OptimizerKind::muon, OptimizerKind::adafactor}) {
    OptimizerConfig grouped = config_of(kind);
    grouped.clip_grad = 3;
    grouped.clip_groups = {{"experts", "*.experts", 2}, {"told", "*.wide", 0}, {"layers", "layers.*", 1}};
    EXPECT_EQ(clip_group_of(grouped, "layers.0.experts"), 1);
    EXPECT_EQ(clip_group_of(grouped, "layers.0.wide"), 2);
    EXPECT_EQ(clip_group_of(grouped, "layers.0.tall"), 3);
    EXPECT_EQ(clip_group_of(grouped, "embed.token.weight"), 0);
    OptimizerConfig plain = config_of(kind);
    plain.clip_grad = 0;
    const auto world = make_self_communicator();
    const ProcessGroups groups(*world, ParallelPlan(1, {}));
    nn::ParamStore stores[] = {nn::ParamStore({.compute = DType::f64}),
                               nn::ParamStore({.compute = DType::f64})};
    for (nn::ParamStore& store : stores) add_parameters(store), store.finalize();
    Optimizer by_group(stores[0], groups, grouped), by_hand(stores[1], groups, plain);
    Arena workspace("workspace", 1 << 24);
    Stream stream;
    for (int64_t step = 1; step <= kSteps; ++step) {
      std::vector<double> squares(4);  // [groups, parts], of one part
      for (const nn::ParamEntry& entry : stores[0].entries()) {
        const auto group = static_cast<size_t>(clip_group_of(grouped, entry.spec.name));
        for (int64_t i = 0; i < entry.numel; ++i) {
          const double g = gradient_of(entry.spec, step, i);
          entry.param.grad.data<double>()[i] = g;
          squares[group] += g * g;
        }
      }
      for (const nn::ParamEntry& entry : stores[1].entries()) {
        const auto group = static_cast<size_t>(clip_group_of(grouped, entry.spec.name));
        const double most = clip_norm_of(grouped, group);
        const double scale = most == 0 ? 1 : std::min(1.0, most / std::sqrt(squares[group]));
        EXPECT_TRUE(scale < 1 || most == 0) << entry.spec.name << " is not clipped";
        for (int64_t i = 0; i < entry.numel; ++i) {
          entry.param.grad.data<double>()[i] = scale * gradient_of(entry.spec, step, i);
        }
      }
      const Tensor told =
          by_group.update(kLr, Tensor(squares.data(), DType::f64, {4, 1}), {}, workspace, stream);
      double one = 1;
      by_hand.update(kLr, Tensor(&one, DType::f64, {1}), {}, workspace, stream);
      ASSERT_EQ(told.shape(), (Shape{5, 2}));
      EXPECT_NEAR(told.data<double>()[0], std::sqrt(squares[0] + squares[1] + squares[2] + squares[3]),
                  1e-12);
      for (size_t g = 0; g < 4; ++g)
        EXPECT_NEAR(told.data<double>()[2 + 2 * g], std::sqrt(squares[g]), 1e-12);
    }
    std::map<std::string, Values> before;
    for (size_t e = 0; e < stores[0].entries().size(); ++e) {
      const nn::ParamEntry &a = stores[0].entries()[e], &b = stores[1].entries()[e];
      const Values got = to_doubles(by_group.state().master(a)), want = to_doubles(by_hand.state().master(b));
      for (size_t i = 0; i < got.size(); ++i) {
        // Lion takes signs, Muon a polynomial of fp64 products: the scale itself rounds otherwise.
        ASSERT_NEAR(got[i], want[i], 1e-9) << a.spec.name << " element " << i;
      }
      before[a.spec.name] = got;
    }
    std::vector<double> wrong = {1, NAN, 1, 1};
    by_group.update(kLr, Tensor(wrong.data(), DType::f64, {4, 1}), {}, workspace, stream);
    for (const nn::ParamEntry& entry : stores[0].entries()) {
      EXPECT_EQ(to_doubles(by_group.state().master(entry)), before[entry.spec.name]) << entry.spec.name;
    }
  }
}

TEST(ClipGroups, ThatTakeNothingAreRefused) {
  OptimizerConfig config;
  const std::vector<std::string> names = {"embed.token.weight", "blocks.0.mlp.up.weight"};
  config.clip_groups = {{"mlp", "*.mlp.*", 1}, {"rest of mlp", "*.up.*", 1}};
  try {
    check_clip_groups(config, names);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("clip_groups.1.parameters: *.up.* takes only"), std::string::npos)
        << e.what();
  }
  config.clip_groups = {{"experts", "*.experts.*", 1}};
  try {
    check_clip_groups(config, names);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("*.experts.* is no parameter"), std::string::npos) << e.what();
  }
}

// The mean of all weights so far, until 1 / (1 - decay) of them; then exponential. Nothing moves with an
// update that was not one.
TEST(WeightAverage, IsThatOfTheWeightsAfterEachUpdate) {
  for (const OptimizerKind kind : {OptimizerKind::adamw, OptimizerKind::muon, OptimizerKind::adafactor}) {
    OptimizerConfig config = config_of(kind);
    config.average = 0.6;  // the mean of two, then exponential
    const auto world = make_self_communicator();
    const ProcessGroups groups(*world, ParallelPlan(1, {}));
    nn::ParamStore store({.compute = DType::f64});
    add_parameters(store);
    store.finalize();
    Optimizer optimizer(store, groups, config);
    Arena workspace("workspace", 1 << 24);
    Stream stream;
    std::map<std::string, Values> want;
    for (int64_t step = 1; step <= kSteps + 1; ++step) {
      for (const nn::ParamEntry& entry : store.entries()) {
        for (int64_t i = 0; i < entry.numel; ++i) {
          entry.param.grad.data<double>()[i] = gradient_of(entry.spec, step, i);
        }
      }
      double squares = step <= kSteps ? 1.0 : NAN;
      optimizer.update(kLr, Tensor(&squares, DType::f64, {1}), {}, workspace, stream);
      if (step > kSteps) break;
      for (const nn::ParamEntry& entry : store.entries()) {
        const Values weights = to_doubles(optimizer.state().master(entry));
        Values& average = want[entry.spec.name];
        average.resize(weights.size());
        const double d = std::min(0.6, 1 - 1 / static_cast<double>(step));
        for (size_t i = 0; i < weights.size(); ++i) average[i] = d * average[i] + (1 - d) * weights[i];
      }
    }
    for (const nn::ParamEntry& entry : store.entries()) {
      const OptimizerState::Moment& kept = optimizer.state().moments(entry).back();
      EXPECT_EQ(kept.name, kAverage);
      const Values got = to_doubles(kept.held);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], want[entry.spec.name][i], 1e-14) << entry.spec.name << " element " << i;
      }
    }
  }
}

}  // namespace
}  // namespace ziggurat::test
