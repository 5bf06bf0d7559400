// Texts that several ranks write, with the experts spread over them, are those of one rank.
#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {
namespace {

struct Written {
  std::vector<int32_t> tokens;
  std::vector<double> logprobs;
  bool operator==(const Written&) const = default;
};
using Texts = std::map<int64_t, Written>;

std::vector<TextRequest> requests(int64_t vocabulary) {
  std::vector<TextRequest> all;
  const std::vector<int32_t> common = test::random_tokens(50, vocabulary, 1);
  for (int64_t id = 0; id < 9; ++id) {
    TextRequest r{.id = id, .max_new_tokens = 3 + id * 5 % 11, .text = id};
    r.prompt.assign(common.begin(), common.begin() + (id % 3) * 20);
    const auto own = test::random_tokens(1 + id * 7 % 13, vocabulary, 10 + static_cast<uint64_t>(id));
    r.prompt.insert(r.prompt.end(), own.begin(), own.end());
    r.sampling = {.temperature = id % 2 == 0 ? 0.0 : 1.5,
                  .top_k = id % 4 == 1 ? 5 : 0,
                  .repetition_penalty = id % 3 == 0 ? 1.2 : 1.0,
                  .seed = 3};
    r.alternatives = id % 4 == 0 ? id / 4 : -1;
    r.scores_prompt = id == 4;
    all.push_back(r);
  }
  return all;
}

// With a few more between them.
Texts write_all(Engine& engine, const std::vector<TextRequest>& all) {
  Texts texts;
  const TextEvents events{.token = [&](int64_t id, int32_t token, bool, const Likelihood* likelihood) {
    texts[id].tokens.push_back(token);
    if (likelihood != nullptr) texts[id].logprobs.push_back(likelihood->logprob);
  }};
  for (const TextRequest& request : all) {
    engine.submit(request);
    engine.step(events);
  }
  while (!engine.idle()) engine.step(events);
  return texts;
}

struct Layout {
  std::string model;
  int ranks, expert_parallel;
  bool panels;
};
void PrintTo(const Layout& l, std::ostream* os) {
  *os << l.model << " on " << l.ranks << " ranks, experts on " << l.expert_parallel
      << (l.panels ? ", panels" : "");
}

class EngineOnRanks : public ::testing::TestWithParam<Layout> {};

TEST_P(EngineOnRanks, WritesTheTextsOfOne) {
  const Layout layout = GetParam();
  const EngineOptions options{.window = 64, .cache_tokens = 160, .texts = 3, .step_rows = 17};
  const auto made = [&](Communicator* world) {
    const model::ModelConfig config =
        test::tiny_model(layout.model, {"model.max_sequence=64", "model.init_std=0.3"});
    auto bare = std::make_unique<test::BareModel>(model::share_experts(config, layout.expert_parallel),
                                                  DType::f32, world);
    if (layout.panels) bare->store.to_panels();
    return bare;
  };
  Texts want;
  {
    const OneThread one_thread;
    const auto bare = made(nullptr);
    Engine engine(bare->model, options);
    want = write_all(engine, requests(bare->layout.vocab_size));
  }
  Texts got;
  int64_t most_rows = 0, all_rows = 0;
  run_on_threads(layout.ranks, [&](Communicator& world) {
    const auto bare = made(&world);
    Engine engine(bare->model, options, &world);
    if (world.rank() != 0) return engine.follow();
    got = write_all(engine, requests(bare->layout.vocab_size));
    engine.end();
    all_rows = engine.counts().rows;
    most_rows = engine.counts().steps * options.step_rows;
  });
  EXPECT_EQ(got.size(), 9u);
  EXPECT_EQ(got, want);
  EXPECT_GT(all_rows, 0);
  EXPECT_GT(most_rows, 0);
}

INSTANTIATE_TEST_SUITE_P(Layouts, EngineOnRanks,
                         ::testing::Values(Layout{"pr_moe", 2, 2, false}, Layout{"pr_moe", 2, 2, true},
                                           Layout{"pr_moe", 2, 1, true}, Layout{"pr_moe", 3, 3, true},
                                           Layout{"pr_moe", 4, 4, true}, Layout{"pr_moe", 4, 2, true},
                                           Layout{"modern_moe", 4, 4, true},
                                           Layout{"modern_moe", 2, 2, false},
                                           Layout{"350m_dense", 3, 1, true}));

// Weights that give no finite logits on one rank: its name ends the job.
TEST(EngineOnRanksFails, AsARankDoes) {
  ziggurat::testing::error_of(ErrorKind::numeric, [] {
    run_on_threads(2, [](Communicator& world) {
      test::BareModel bare(test::tiny_model("pr_moe"), DType::f32, &world);
      if (world.rank() == 1) bare.store.find("final_norm.weight").param.value.data<float>()[0] = NAN;
      Engine engine(bare.model, {.texts = 1}, &world);
      if (world.rank() != 0) return engine.follow();
      write_all(engine, requests(bare.layout.vocab_size));
    });
  });
}

}  // namespace
}  // namespace ziggurat::infer
