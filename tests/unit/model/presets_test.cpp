// The sizes of OpenMoE's models, as its paper and as its code have them, and of models that everybody knows:
// from the configs, and from the model as it is built.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include <ziggurat/config/config.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/optim/schedule.h>
#include <ziggurat/train/memory_plan.h>

namespace ziggurat {
namespace {

train::RunConfig load(const std::string& name) {
  train::RunConfig config;
  load_config(config, test::source_dir() + "/configs/" + name + ".yaml");
  return config;
}

// What the model as it is built has, all told.
int64_t built(const train::RunConfig& config) {
  const std::vector<int> sizes = config.model.expert_parallel_sizes();
  return train::plan_memory(config, *std::max_element(sizes.begin(), sizes.end())).global_parameters;
}

struct OpenMoe {
  const char* name;
  int64_t layers, interval, hidden, heads, head_dim, ffn, experts;
  bool released;
  // As published, to so many digits: of which the vocabulary is counted once, or not at all where `tables` is
  // 0. What is active for a token is known for some.
  double parameters, unit;
  int64_t tables;
};
void PrintTo(const OpenMoe& m, std::ostream* os) { *os << m.name; }

class OpenMoeModel : public testing::TestWithParam<OpenMoe> {};

// Every layer has an MLP; every interval-th also experts of its size, and a router.
TEST_P(OpenMoeModel, HasThePublishedSize) {
  const OpenMoe& m = GetParam();
  const train::RunConfig config = load(std::string("openmoe/") + m.name);
  const int64_t vocabulary = 256'384 * m.hidden, moe_layers = m.layers / m.interval;
  const int64_t mlp = (m.released ? 4 : 3) * m.hidden * m.ffn;
  const int64_t attention = 4 * m.hidden * m.heads * m.head_dim;
  const int64_t norms = (2 * m.layers + 1 + (m.released ? moe_layers : 0)) * m.hidden;
  const int64_t without_experts = m.layers * (attention + mlp) + moe_layers * m.experts * m.hidden + norms;
  const int64_t all = 2 * vocabulary + without_experts + moe_layers * m.experts * mlp;
  const model::ModelCounts counts = model::count(config.model, 2048);
  EXPECT_EQ(counts.parameters, all);
  EXPECT_EQ(counts.active_parameters, all - moe_layers * (m.experts - 2) * mlp);
  EXPECT_EQ(built(config), all);
  EXPECT_NEAR(static_cast<double>(all - (2 - m.tables) * vocabulary), m.parameters, m.unit / 2);
  const std::vector<model::BlockSpec> layers = config.model.layers();
  for (int64_t i = 0; i < m.layers; ++i) {
    const bool has_experts = (i + 1) % m.interval == 0;
    EXPECT_EQ(layers[static_cast<size_t>(i)].experts, has_experts ? m.experts : 0) << "layer " << i;
  }
}

// The paper's 650M, 8.7B (its 8.78 cut) and 34B (its 34.6 cut) are those of three matrices and one table; the
// 49 GB in fp32 of its repository's README, and twice the 23 GB in bf16, are the released 11.86B.
INSTANTIATE_TEST_SUITE_P(
    Models, OpenMoeModel,
    testing::Values(OpenMoe{"base", 12, 4, 768, 12, 64, 3072, 16, false, 650e6, 1e6, 1},
                    OpenMoe{"8b", 24, 6, 2048, 24, 128, 8192, 32, false, 8.78e9, 1e7, 1},
                    OpenMoe{"34b", 32, 4, 3072, 24, 128, 12288, 32, false, 34.6e9, 1e8, 1},
                    OpenMoe{"base_released", 12, 4, 768, 12, 64, 2048, 16, true, 799.7e6, 1e5, 2},
                    OpenMoe{"8b_released", 24, 6, 2048, 24, 128, 8192, 32, true, 11.86e9, 1e7, 2},
                    OpenMoe{"34b_released", 32, 4, 3072, 24, 128, 12288, 32, true, 46.3e9, 1e8, 2}));

TEST(OpenMoeModels, TheBaseModelsActiveParametersArePublished) {  // of the model as its code has it
  const train::RunConfig config = load("openmoe/base_released");
  const int64_t vocabulary = 256'384 * 768;
  const int64_t active = model::count(config.model, 2048).active_parameters;
  EXPECT_NEAR(static_cast<double>(active - vocabulary), 339e6, 0.5e6);
  EXPECT_NEAR(static_cast<double>(active - 2 * vocabulary), 142e6, 0.5e6);
}

// Of a matrix with n inputs the variance is 0.1 / n: attention's and experts' normal, queries by 1 /
// sqrt(head_dim) less for scores that are not scaled, MLPs' and the head's cut at two deviations of the
// distribution that is cut.
TEST(OpenMoeModels, InitialValuesAreScaledByTheInputs) {
  model::ModelConfig c = model::fit_to_ranks(load("tiny/openmoe").model, 1);
  c.hidden = 64, c.heads = 8, c.head_dim = 16, c.ffn_hidden = 128, c.vocab_size = 128;
  const auto world = make_self_communicator();
  const ProcessGroups groups(*world, ParallelPlan(1, c.expert_parallel_sizes()));
  nn::ParamStore store({.compute = DType::f32});
  const model::Gpt gpt(c, store, groups);
  store.finalize();
  const auto of_inputs = [](int64_t n) { return std::sqrt(0.1 / static_cast<double>(n)); };
  const auto expect = [&](const std::string& name, double std, bool cut, int64_t first = 0,
                          int64_t rows = 0) {
    const Tensor& all = store.find(name).param.value;
    const Tensor part = rows > 0 ? all.rows(first, first + rows) : all;
    double square = 0, largest = 0;
    for (int64_t i = 0; i < part.numel(); ++i) {
      const double x = part.data<float>()[i];
      square += x * x / static_cast<double>(part.numel());
      largest = std::max(largest, std::abs(x));
    }
    EXPECT_NEAR(std::sqrt(square), std, 5 * std / std::sqrt(2.0 * static_cast<double>(part.numel()))) << name;
    constexpr double kOfCut = 0.87962566103423978;  // the deviation of a normal distribution cut at 2
    EXPECT_EQ(largest <= 2 * std / kOfCut * (1 + 1e-6), cut) << name << " has a value of " << largest;
  };
  constexpr int64_t kQueries = 8 * 16;
  expect("embed.token.weight", 1, false);
  expect("head.weight", of_inputs(64), true);
  expect("blocks.1.attention.qkv.weight", of_inputs(64) / 4, false, 0, kQueries);
  expect("blocks.1.attention.qkv.weight", of_inputs(64), false, kQueries, 2 * kQueries);
  expect("blocks.1.attention.out.weight", of_inputs(kQueries), false);
  for (const char* inner : {"gate", "value", "up"}) {
    expect(std::string("blocks.0.mlp.") + inner + ".weight", of_inputs(64), true);
    expect(std::string("blocks.1.moe.experts.") + inner + ".weight", of_inputs(64), false);
  }
  expect("blocks.0.mlp.down.weight", of_inputs(128), true);
  expect("blocks.1.moe.experts.down.weight", of_inputs(128), false);
  expect("blocks.1.moe.router.weight", 0.02, false);
}

TEST(OpenMoeModels, TheirLearningRatesAreThePapers) {
  const train::RunConfig config = load("openmoe/8b");
  const int64_t step = config.batch.global_batch * 2048;
  for (const auto& [steps, rate] :
       {std::pair{0, 0.01}, {9'999, 0.01}, {100'000, 0.00316}, {500'000, 0.00141}}) {
    EXPECT_NEAR(learning_rate(config.optimizer, steps * step), rate, 0.5e-5) << steps;
  }
}

struct Preset {
  const char* name;
  int64_t parameters, active;
};
void PrintTo(const Preset& p, std::ostream* os) { *os << p.name; }

class PresetModel : public testing::TestWithParam<Preset> {};

TEST_P(PresetModel, HasItsExactSize) {
  const train::RunConfig config = load(std::string("presets/") + GetParam().name);
  const model::ModelCounts counts = model::count(config.model, 4096);
  EXPECT_EQ(counts.parameters, GetParam().parameters);
  EXPECT_EQ(counts.active_parameters, GetParam().active);
  EXPECT_EQ(built(config), GetParam().parameters);
  EXPECT_EQ(config.model.moe.drop, moe::DropPolicy::none);
}

INSTANTIATE_TEST_SUITE_P(Presets, PresetModel,
                         testing::Values(Preset{"olmoe_1b_7b", 6'919'161'856, 1'282'017'280},
                                         Preset{"qwen3_30b_a3b", 30'532'122'624, 3'353'032'704},
                                         Preset{"mixtral_8x7b", 46'702'792'704, 12'879'925'248},
                                         Preset{"deepseek_v2_lite_without_mla", 15'787'866'112,
                                                2'742'532'096}));

}  // namespace
}  // namespace ziggurat
