// Texts that several ranks write, with the experts spread over them, are those of one rank.
#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/model/inference_layout.h>
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

// A model with initial weights on ranks that share it.
struct SharedModel {
  SharedModel(const model::ModelConfig& config, const model::InferenceLayout& layout, DType dtype,
              Communicator& world)
      : placed(model::place(config, layout, world.size())),
        groups(world, placed.plan),
        store({.compute = dtype, .trainable = false}),
        model(placed.config, store, groups) {
    store.finalize();
    store.to_panels();
  }
  model::PlacedModel placed;
  ProcessGroups groups;
  nn::ParamStore store;
  model::Gpt model;
};

// Many heads, and sizes that 2, 3, 4 and 8 divide.
model::ModelConfig dividable(const std::string& name) {
  const bool grouped = name == "grouped";
  std::vector<std::string> keys{"model.max_sequence=64", "model.init_std=0.3", "model.hidden=48",
                                "model.heads=24", "model.vocab_multiple=48"};
  if (grouped) keys.insert(keys.end(), {"model.kv_heads=2", "model.qk_norm=head"});
  return test::tiny_model(grouped ? "modern_moe" : name, keys);
}

struct SharedBy {
  std::string model;
  int ranks, tensor, expert = 0, slice = 0;
  DType dtype = DType::f32;
};
void PrintTo(const SharedBy& s, std::ostream* os) {
  *os << s.model << " on " << s.ranks << " ranks, tensor " << s.tensor << ", expert " << s.expert
      << ", slice " << s.slice << ", " << to_string(s.dtype);
}

class EngineOnRanksThatShare : public ::testing::TestWithParam<SharedBy> {};

TEST_P(EngineOnRanksThatShare, WritesTheTextsOfOneToTheBit) {
  const SharedBy by = GetParam();
  const EngineOptions options{.window = 64, .cache_tokens = 160, .texts = 3, .step_rows = 17};
  const model::ModelConfig config = dividable(by.model);
  const std::vector<TextRequest> all = requests(config.vocab_size);
  Texts want, got;
  {
    const OneThread one_thread;
    const auto self = make_self_communicator();
    const SharedModel whole(config, {}, by.dtype, *self);
    Engine engine(whole.model, options);
    want = write_all(engine, all);
  }
  run_on_threads(by.ranks, [&](Communicator& world) {
    const SharedModel part(config, {.tensor = by.tensor, .expert = by.expert, .expert_slice = by.slice},
                           by.dtype, world);
    Engine engine(part.model, options, &world);
    if (world.rank() != 0) return engine.follow();
    engine.keep_in_touch();
    got = write_all(engine, all);
    engine.keep_in_touch();
    engine.end();
  });
  EXPECT_EQ(got.size(), 9u);
  EXPECT_EQ(got, want);
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, EngineOnRanksThatShare,
    ::testing::Values(
        SharedBy{"350m_dense", 2, 2}, SharedBy{"350m_dense", 3, 3}, SharedBy{"350m_dense", 4, 2},
        SharedBy{"350m_dense", 8, 8}, SharedBy{"350m_dense", 2, 2, 0, 0, DType::bf16},
        // Queries, keys and values of more ranks than there are heads of the latter; a team of each size.
        SharedBy{"grouped", 2, 2}, SharedBy{"grouped", 4, 4}, SharedBy{"grouped", 8, 8},
        SharedBy{"grouped", 8, 4, 0, 1}, SharedBy{"grouped", 4, 2, 0, 0, DType::bf16},
        // Experts: whole, over the ranks of all teams; as many slices as the rest; more slices; fewer.
        SharedBy{"modern_moe", 4, 2, 0, 1}, SharedBy{"modern_moe", 4, 2, 0, 2},
        SharedBy{"modern_moe", 4, 1, 0, 2}, SharedBy{"modern_moe", 4, 2, 0, 4},
        SharedBy{"modern_moe", 4, 4, 2, 2}, SharedBy{"modern_moe", 8, 4, 2, 2}, SharedBy{"pr_moe", 2, 2},
        SharedBy{"pr_moe", 2, 1, 0, 2}, SharedBy{"pr_moe", 3, 3}, SharedBy{"pr_moe", 3, 1},
        SharedBy{"pr_moe", 4, 4}, SharedBy{"pr_moe", 4, 2}, SharedBy{"pr_moe", 4, 2, 1, 2},
        SharedBy{"pr_moe", 8, 8}, SharedBy{"pr_moe", 8, 2, 0, 4, DType::bf16},
        SharedBy{"pr_moe", 8, 1, 2, 1}));

// Messages of one rank in the all-to-alls of a forward: as many as there are other teams, whatever their size
// (arXiv 2201.05596, section 5.2: O(p / L), and O(L) in gathers of the team).
TEST(EngineOnRanksThatShare, ExchangesAmongEqualPlacesOnly) {
  const model::ModelConfig config = dividable("modern_moe");
  const auto messages = [&](int ranks, const model::InferenceLayout& layout) {
    int64_t most = 0;
    std::mutex mutex;
    run_on_threads(ranks, [&](Communicator& world) {
      const SharedModel part(config, layout, DType::f32, world);
      Communicator& exchange = part.placed.plan.tokens_alike() ? part.groups.exchange(8) : part.groups.ep(8);
      Engine engine(part.model, {.window = 64, .texts = 3}, &world);
      if (world.rank() == 0) {
        write_all(engine, requests(config.vocab_size));
        engine.end();
      } else {
        engine.follow();
      }
      // Counts go to all others, and rows, there and back, at most.
      const int64_t calls = exchange.last_collective().sequence;
      const std::lock_guard lock(mutex);
      EXPECT_LE(exchange.traffic().inside.messages, calls * (exchange.size() - 1));
      EXPECT_GE(3 * exchange.traffic().inside.messages, calls * (exchange.size() - 1));
      most = std::max<int64_t>(most, exchange.size() - 1);
    });
    return most;
  };
  EXPECT_EQ(messages(8, {}), 7);
  EXPECT_EQ(messages(8, {.tensor = 2, .expert_slice = 1}), 3);
  EXPECT_EQ(messages(8, {.tensor = 4, .expert_slice = 1}), 1);
}

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
