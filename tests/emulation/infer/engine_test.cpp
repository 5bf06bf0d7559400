// Writing and scoring texts with a model on the emulated device: the CPU's tokens, and its likelihoods.
#include <map>

#include "tests/emulation/emulated_test.h"
#include "tests/support/bare_model.h"
#include "tests/support/op_test.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/eval/scorer.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/model/inference_layout.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat::emulation {
namespace {

using ziggurat::testing::error_of;

struct Written {
  std::vector<int32_t> tokens;
  std::vector<double> logprobs;
  bool operator==(const Written&) const = default;
};

std::map<int64_t, Written> write(infer::Engine& engine, const std::vector<infer::TextRequest>& requests) {
  std::map<int64_t, Written> texts;
  for (const infer::TextRequest& request : requests) engine.submit(request);
  const infer::TextEvents events{
      .token = [&](int64_t id, int32_t token, bool, const infer::Likelihood* likelihood) {
        texts[id].tokens.push_back(token);
        if (likelihood != nullptr) texts[id].logprobs.push_back(likelihood->logprob);
      }};
  while (!engine.idle()) engine.step(events);
  return texts;
}

// Prompts of 1 to 21 tokens, of which two begin alike; more than are written at once, or read in a pass.
std::vector<infer::TextRequest> requests(int64_t vocabulary) {
  std::vector<infer::TextRequest> all;
  for (int64_t id = 0; id < 4; ++id) {
    infer::TextRequest request{.id = id, .max_new_tokens = 5 + id, .text = id, .alternatives = 1};
    request.prompt =
        test::random_tokens(1 + id * 20 / 3, vocabulary, id == 3 ? 2 : static_cast<uint64_t>(id));
    request.sampling.temperature = 0;
    request.scores_prompt = id == 1;
    all.push_back(std::move(request));
  }
  return all;
}

struct ModelCase {
  const char* name;
  std::vector<std::string> overrides = {};
};
void PrintTo(const ModelCase& c, std::ostream* os) { *os << c.name; }

class EmulatedEngine : public EmulatedTest, public ::testing::WithParamInterface<ModelCase> {
 protected:
  static model::ModelConfig config() {
    std::vector<std::string> overrides = GetParam().overrides;
    overrides.insert(overrides.end(),
                     {"model.max_sequence=32", "batch.sequence_length=32", "model.init_std=0.3"});
    return test::tiny_model(GetParam().name, overrides);
  }
  // Longer than a block of the cache; shorter than some texts, which slide where positions rotate.
  static constexpr infer::EngineOptions kOptions{.window = 24, .texts = 3, .step_rows = 9};
};

TEST_P(EmulatedEngine, WritesTheTextsOfTheCpu) {
  const test::BareModel cpu(config(), DType::f32), device(config(), DType::f32, nullptr, Device::cuda);
  infer::Engine here(cpu.model, kOptions), there(device.model, kOptions);
  const auto asked = requests(cpu.layout.vocab_size);
  const auto want = write(here, asked), got = write(there, asked);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [id, text] : want) {
    EXPECT_EQ(got.at(id).tokens, text.tokens) << "text " << id;
    test::expect_within(got.at(id).logprobs, text.logprobs, 1e-4, fmt::format("likelihoods of text {}", id));
  }
  const auto of_cpu = here.executor().loads(), of_device = there.executor().loads();
  ASSERT_EQ(of_device.size(), of_cpu.size());
  for (size_t i = 0; i < of_cpu.size(); ++i) EXPECT_EQ(of_device[i].counts, of_cpu[i].counts);
}

// A text does not depend on what is written beside it, to the bit; nor on how its prompt was cut up.
TEST_P(EmulatedEngine, WritesATextAloneAsBesideOthers) {
  const test::BareModel device(config(), DType::bf16, nullptr, Device::cuda);
  const auto asked = requests(device.layout.vocab_size);
  infer::Engine together(device.model, kOptions);
  const auto want = write(together, asked);
  infer::EngineOptions options = kOptions;
  options.step_rows = 30;
  infer::Engine alone(device.model, options);
  for (const infer::TextRequest& request : asked) {
    EXPECT_EQ(write(alone, {request}).at(request.id), want.at(request.id)) << "text " << request.id;
  }
}

TEST_P(EmulatedEngine, ScoresAsTheCpu) {
  const test::BareModel cpu(config(), DType::f32), device(config(), DType::f32, nullptr, Device::cuda);
  const auto alone = make_self_communicator();
  const int64_t vocabulary = cpu.layout.vocab_size;
  std::vector<eval::TokenRequest> asked;
  for (uint64_t i = 0; i < 5; ++i) {  // some share a context
    asked.push_back({test::random_tokens(9, vocabulary, i / 2),
                     test::random_tokens(1 + static_cast<int64_t>(i), vocabulary, 10 + i)});
  }
  const eval::ScorerOptions options{.length = 24, .batch_tokens = 13, .sequences = 3};
  eval::Scorer here(cpu.model, *alone, options), there(device.model, *alone, options);
  const auto want = here.score(asked), got = there.score(asked);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i].log_likelihood, want[i].log_likelihood, 1e-4 * static_cast<double>(i + 1));
    EXPECT_EQ(got[i].greedy, want[i].greedy);
  }
  const std::vector<std::vector<int32_t>> contexts = {asked[0].context, asked[4].context};
  const auto ended = [](size_t, std::span<const int32_t>) { return false; };
  EXPECT_EQ(there.generate(contexts, 4, ended), here.generate(contexts, 4, ended));
}

INSTANTIATE_TEST_SUITE_P(Tiny, EmulatedEngine,
                         ::testing::Values(ModelCase{"350m_dense"}, ModelCase{"pr_moe"},
                                           ModelCase{"modern_moe", {"model.kv_heads=2", "model.window=11"}},
                                           ModelCase{"deepseek_moe"}, ModelCase{"openmoe"}),
                         [](const auto& tested) { return std::string(tested.param.name); });

class EmulatedEngineAlone : public EmulatedTest {};

// The host waits once for a pass: for its logits, and for its tables.
TEST_F(EmulatedEngineAlone, APassWaitsForItsLogitsOnly) {
  const test::BareModel device(test::tiny_model("pr_moe"), DType::f32, nullptr, Device::cuda);
  infer::Executor executor(device.model, {.blocks = 2, .rows = 4});
  const std::vector<int32_t> blocks = {0, 1};
  infer::Pass pass;
  pass.clear();
  pass.add_sequence(blocks, 0);
  for (int64_t i = 0; i < 3; ++i) pass.add_row(1, i, i == 2);
  int64_t rows = 0;
  const int64_t waits = device_work().waits;
  executor.run(pass, [&](size_t, const Tensor& logits) { rows += logits.dim(0); });
  EXPECT_EQ(rows, 1);
  EXPECT_LE(device_work().waits, waits + 2);
}

// A model of ranks that share it: the texts of `requests`, as rank 0 has them.
std::map<int64_t, Written> write_on_ranks(const model::ModelConfig& config, int ranks, int tensor,
                                          Device device, bool a_device_each) {
  std::map<int64_t, Written> texts;
  run_on_threads(ranks, [&](Communicator& world) {
    if (a_device_each) {
      EXPECT_EQ(world.use_devices(), "");
    }
    const model::PlacedModel placed =
        model::place(config, {.tensor = tensor, .expert_slice = config.has_experts() ? tensor : 0}, ranks);
    const ProcessGroups groups(world, placed.plan);
    nn::ParamStore store({.compute = DType::f32, .device = device, .trainable = false});
    const model::Gpt model(placed.config, store, groups);
    store.finalize();
    infer::Engine engine(model, {.window = 24, .texts = 3, .step_rows = 9}, &world);
    if (world.rank() > 0) return engine.follow();
    texts = write(engine, requests(config.vocab_size));
    engine.end();
  });
  return texts;
}

// Texts of their own, experts of all, and in teams of two matrices of one.
TEST_F(EmulatedEngineAlone, RanksShareAModelAsOnTheCpu) {
  for (const char* name : {"350m_dense", "pr_moe", "qwen3_moe"}) {
    const model::ModelConfig config =
        test::tiny_model(name, {"model.max_sequence=32", "batch.sequence_length=32", "model.init_std=0.3"});
    for (const int tensor : {1, 2}) {  // with slices of experts as of all else; 2: between devices
      SCOPED_TRACE(::testing::Message() << name << ", tensor " << tensor);
      const auto want = write_on_ranks(config, 2, tensor, Device::cpu, false);
      ASSERT_EQ(want.size(), 4u);
      const auto got = write_on_ranks(config, 2, tensor, Device::cuda, tensor == 2);
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [id, text] : want) {
        EXPECT_EQ(got.at(id).tokens, text.tokens) << "text " << id;
        test::expect_within(got.at(id).logprobs, text.logprobs, 1e-4, fmt::format("text {}", id));
      }
    }
  }
}

// All tokens of all ranks may choose the experts of one, for which a device's memory is taken beforehand.
TEST_F(EmulatedEngineAlone, AnExpertThatAllChooseHasRoom) {
  const model::ModelConfig config = test::tiny_model("pr_moe");
  run_on_threads(4, [&](Communicator& world) {
    test::BareModel shared(config, DType::f32, &world, Device::cuda);
    Stream stream(Device::cuda);
    int routers = 0;
    for (const nn::ParamEntry& entry : shared.store.entries()) {
      if (!entry.spec.name.ends_with("router.weight")) continue;
      fill_zero(entry.param.value, stream);  // of equals the first is chosen
      ++routers;
    }
    stream.wait();
    ASSERT_GT(routers, 0);
    infer::Executor executor(shared.model, {.blocks = 4, .rows = 12});
    const std::vector<int32_t> blocks = {0};
    infer::Pass pass;
    pass.clear();
    pass.add_sequence(blocks, 0);
    for (int64_t i = 0; i < 12; ++i) pass.add_row(1, i, i == 11);
    int64_t rows = 0;
    executor.run(pass, [&](size_t, const Tensor& logits) { rows += logits.dim(0); });
    EXPECT_EQ(rows, 1);
    EXPECT_EQ(executor.loads().front().counts.front(), 12);
  });
}

TEST_F(EmulatedEngineAlone, WhatADeviceDoesNotWriteIsRefused) {
  run_on_threads(4, [](Communicator& world) {
    const model::PlacedModel placed =
        model::place(test::tiny_model("pr_moe"), {.tensor = 2, .expert_slice = 1}, 4);
    const ProcessGroups groups(world, placed.plan);
    nn::ParamStore store({.compute = DType::f32, .device = Device::cuda, .trainable = false});
    const model::Gpt model(placed.config, store, groups);
    store.finalize();
    EXPECT_NE(
        error_of(ErrorKind::config, [&] { infer::Executor(model, {.blocks = 1}); }).find("expert_slice"),
        std::string::npos);
  });
}

}  // namespace
}  // namespace ziggurat::emulation
