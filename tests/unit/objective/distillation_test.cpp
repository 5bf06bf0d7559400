#include <cmath>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include "tests/unit/objective/objective_bench.h"
#include <ziggurat/config/config.h>
#include <ziggurat/objective/distillation.h>
#include <ziggurat/objective/next_token.h>

namespace ziggurat::objective {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;

TEST(DistilWeight, FollowsTheTokens) {
  EXPECT_EQ(distil_weight({.start = 0.5}, 1'000'000, 100), 0.5);  // until 0: always
  const DistilWeightConfig staged{.start = 2, .until = 70};
  EXPECT_EQ(distil_weight(staged, 69, 100), 2);
  EXPECT_EQ(distil_weight(staged, 70, 100), 0);
  const DistilWeightConfig linear{.start = 2, .until = 60, .then = AfterUntil::linear};
  EXPECT_EQ(distil_weight(linear, 60, 100), 2);
  EXPECT_EQ(distil_weight(linear, 70, 100), 1.5);
  EXPECT_EQ(distil_weight(linear, 100, 100), 0);
  const DistilWeightConfig cosine{.start = 2, .until = 60, .then = AfterUntil::cosine, .end = 80};
  EXPECT_DOUBLE_EQ(distil_weight(cosine, 70, 100), 1);
  EXPECT_DOUBLE_EQ(distil_weight(cosine, 65, 100), 1 + std::cos(M_PI / 4));
  EXPECT_GT(distil_weight(cosine, 79, 100), 0);
  EXPECT_EQ(distil_weight(cosine, 80, 100), 0);
}

TEST(DistilWeight, RefusesWhatCannotBeMeant) {
  const auto problem = [](const std::string& text) {
    return error_of(ErrorKind::config, [&] {
      DistilConfig config;
      parse_config(config, "teacher: here\nweight: " + text + "\n");
    });
  };
  EXPECT_THAT(problem("{until: 1K, end: 2K}"), HasSubstr("weight.end"));
  EXPECT_THAT(problem("{then: linear}"), HasSubstr("weight.until"));
  EXPECT_THAT(problem("{until: 2K, then: cosine, end: 1K}"), HasSubstr("more than until (2000)"));
  DistilConfig good;
  parse_config(good, "{teacher: here, weight: {start: 1, until: 210B, then: 0}}\n");
  EXPECT_EQ(good.weight.until, 210'000'000'000);
  EXPECT_EQ(good.weight.then, AfterUntil::zero);
}

struct BenchTeacher final : Teacher {
  BenchTeacher(const model::ModelConfig& config, std::string its_hash)
      : of(config, 7, false), hash(std::move(its_hash)) {}
  const model::Gpt& model() const override { return of.gpt; }
  int64_t bytes() const override { return 0; }
  const std::string& weight_hash() const override { return hash; }
  test::BenchModel of;
  std::string hash;
};

class DistillationObjective : public ::testing::Test {
 protected:
  static model::ModelConfig student_model() {
    model::ModelConfig m = test::bench_model({{}, {.ffn = model::FfnKind::residual_moe, .experts = 2}});
    m.moe.balance_coefficient = 0.5;
    return m;
  }
  // Of another width, depth and experts; what it does in training must not matter.
  static model::ModelConfig teacher_model() {
    model::ModelConfig m = test::bench_model({{}, {.ffn = model::FfnKind::moe, .experts = 4}, {}}, 24);
    m.dropout = {0.3, 0.3, 0.3};
    m.moe.drop = moe::DropPolicy::random;
    m.moe.capacity_factor = 0.5, m.moe.eval_capacity_factor = 0.5, m.moe.min_capacity = 1;
    m.moe.jitter = 0.1;
    return m;
  }
  static DistilConfig by(const DistilWeightConfig& weight, double temperature = 1) {
    DistilConfig config;
    config.weight = weight;
    config.temperature = temperature;
    return config;
  }
  Distillation make(const DistilConfig& distil, double z_loss = 0) {
    return {student_.gpt,
            {.z_loss = z_loss},
            distil,
            1000,
            [this] { return std::make_unique<BenchTeacher>(teacher_model(), hash_); },
            Device::cpu};
  }

  std::string hash_ = "a";
  test::BenchModel student_{student_model()};
  test::ObjectiveBench bench_;
};

TEST_F(DistillationObjective, PartsAreWhatIsDifferentiated) {
  for (const double temperature : {1.0, 3.0}) {
    Distillation objective = make(by({.start = 0.7}, temperature), 0.05);
    objective.begin_step(0, bench_.stream());
    std::vector<std::string> names;
    for (const LossPart& part : objective.parts()) names.push_back(part.name);
    EXPECT_THAT(names, ElementsAre("cross_entropy", "z_loss", "distillation", "balance", "router_z"));
    EXPECT_GT(bench_.parts(objective)[2], 0.1);
    const auto [gradient, difference] = bench_.derivative(objective, student_.store);
    EXPECT_GT(std::abs(gradient), 0.1);
    EXPECT_NEAR(gradient, difference, 1e-6 * std::abs(gradient));
  }
}

// The same divergence as from logits that were computed in evaluation, by the definition.
TEST_F(DistillationObjective, TheTeacherAnswersAsInEvaluation) {
  Distillation objective = make({});
  objective.begin_step(0, bench_.stream());
  const double got = bench_.parts(objective)[1];
  const auto log_probabilities = [&](const model::Gpt& gpt) {
    Tape& tape = bench_.begin(false);
    const Tensor hidden = tape.apart([&](Tape& t) { return gpt.forward(t, bench_.batch()); });
    const Tensor logits = gpt.logits(tape, tape.constant(hidden), 0, hidden.dim(0)).value();
    std::vector<double> all;
    for (int64_t i = 0; i < logits.dim(0); ++i) {
      const double* row = logits.data<double>() + i * logits.dim(1);
      double sum = 0;
      for (int64_t j = 0; j < test::kBenchVocabulary; ++j) sum += std::exp(row[j]);
      for (int64_t j = 0; j < test::kBenchVocabulary; ++j) all.push_back(row[j] - std::log(sum));
    }
    return all;
  };
  // Two micro-batches apart, with other random numbers, it says the same.
  const BenchTeacher teacher(teacher_model(), "");
  const std::vector<double> p = log_probabilities(teacher.model()), q = log_probabilities(student_.gpt);
  double want = 0;
  for (int64_t i = 0; i < test::kBenchTokens; ++i) {
    if (bench_.batch().targets[i] < 0) continue;
    for (int64_t j = 0; j < test::kBenchVocabulary; ++j) {
      const auto at = static_cast<size_t>(i * test::kBenchVocabulary + j);
      want += std::exp(p[at]) * (p[at] - q[at]);
    }
  }
  EXPECT_NEAR(got, want, 1e-9 * want);
}

TEST_F(DistillationObjective, WithoutATeacherItIsTheNextTokenToTheBit) {
  Distillation objective = make(by({.until = 50}));
  NextToken next_token(student_.gpt);
  EXPECT_TRUE(objective.begin_step(0, bench_.stream()));
  EXPECT_FALSE(objective.begin_step(49, bench_.stream()));
  EXPECT_NE(objective.teacher(), nullptr);
  EXPECT_TRUE(objective.begin_step(50, bench_.stream()));
  EXPECT_EQ(objective.teacher(), nullptr) << "it stays in memory";
  const std::vector<double> got = bench_.parts(objective), want = bench_.parts(next_token);
  EXPECT_THAT(got, ElementsAre(want[0], 0, want[1], want[2]));
  EXPECT_EQ(bench_.derivative(objective, student_.store), bench_.derivative(next_token, student_.store));
  EXPECT_TRUE(objective.begin_step(30, bench_.stream()));  // the run went back
  EXPECT_NE(objective.teacher(), nullptr);
}

TEST_F(DistillationObjective, ARunKeepsToItsTeacher) {
  Distillation first = make({});
  EXPECT_TRUE(first.state().empty());
  first.begin_step(0, bench_.stream());
  EXPECT_EQ(first.state().at("teacher"), "a");
  Distillation same = make({}), later = make(by({.until = 10}));
  same.resume(first.state());
  EXPECT_NO_THROW(same.begin_step(20, bench_.stream()));
  hash_ = "b";
  Distillation other = make({});
  other.resume(first.state());
  EXPECT_THAT(error_of(ErrorKind::config, [&] { other.begin_step(20, bench_.stream()); }),
              HasSubstr("name the same teacher"));
  later.resume(first.state());
  later.begin_step(20, bench_.stream());  // needs none any more, and still tells which it was
  EXPECT_EQ(later.state(), first.state());
}

}  // namespace
}  // namespace ziggurat::objective
