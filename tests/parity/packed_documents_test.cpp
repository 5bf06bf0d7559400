// Documents packed into sequences are, with positions and attention reset, what they are alone; and a run
// with them depends on its layout as little as any other.
#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/documents.h>
#include <ziggurat/objective/next_token.h>

namespace ziggurat {
namespace {

using test::expect_same_run;
using test::to_doubles;
using test::train_on_threads;
using test::TrainingRun;
using ziggurat::testing::TempDir;

constexpr int32_t kEod = 0;
constexpr int64_t kVocabulary = 32;

struct Case {
  const char* name;
  model::Positions positions;
  model::BlockSpec second_layer;
  DType dtype;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

model::ModelConfig model_of(const Case& c) {
  model::ModelConfig m;
  m.vocab_size = m.vocab_multiple = kVocabulary;
  m.max_sequence = 256, m.hidden = 32, m.heads = 4, m.kv_heads = 2, m.init_std = 0.2;
  m.positions = c.positions;
  m.blocks = {{1, {{}, c.second_layer}}};
  m.moe.top_k = 2, m.moe.drop = moe::DropPolicy::none;
  m.moe.balance_coefficient = m.moe.z_coefficient = 0;  // they are of a micro-batch, not of a token
  return m;
}

// A model in memory, which adds the gradients of all it is given.
class Model {
 public:
  explicit Model(const Case& c)
      : groups_(*self_, ParallelPlan(1, {1})),
        store_({.compute = c.dtype}),
        gpt_(model_of(c), store_, groups_, /*recompute=*/true) {
    store_.finalize();
  }
  // The loss of every token.
  std::vector<double> add(const model::TokenBatch& batch) {
    std::vector<double> losses(static_cast<size_t>(batch.size()));
    tape_.begin({});
    objective::NextToken(gpt_).evaluate(tape_, batch, losses.data());
    tape_.backward();
    return losses;
  }
  const nn::ParamStore& store() const { return store_; }

 private:
  std::unique_ptr<Communicator> self_ = make_self_communicator();
  ProcessGroups groups_;
  nn::ParamStore store_;
  model::Gpt gpt_;
  Arena activations_{"a", 1 << 28}, gradients_{"g", 1 << 28}, workspace_{"w", 1 << 28};
  Stream stream_;
  Tape tape_{activations_, gradients_, workspace_, stream_};
};

// Two sequences of 200 tokens, and their targets, in documents of 1 to 130; one goes across the border.
struct Packed {
  static constexpr int64_t kSequences = 2, kLength = 200;
  std::vector<int32_t> tokens, targets, positions, first_key;
  Packed() : positions(kSequences * kLength), first_key(positions.size()) {
    const Philox rng(1, Purpose::test);
    const std::vector<int64_t> documents = {1, 1, 70, 3, 64, 16, 50, 2, 130, 40, 1, 22};
    for (const int64_t length : documents) {
      for (int64_t i = 1; i < length; ++i) {
        tokens.push_back(static_cast<int32_t>(1 + rng.bits(tokens.size()) % (kVocabulary - 1)));
      }
      tokens.push_back(kEod);
    }
    EXPECT_EQ(tokens.size(), positions.size());
    for (size_t i = 0; i < tokens.size(); ++i) targets.push_back(tokens[(i + 1) % tokens.size()]);
    locate_documents(tokens.data(), kSequences, kLength, kEod, positions.data(), first_key.data());
  }
  model::TokenBatch batch() const {
    return {tokens.data(), targets.data(), kSequences, kLength, positions.data(), first_key.data()};
  }
  // Calls body(first token, tokens) for every document's part of a sequence.
  template <class Body>
  void for_each_document(const Body& body) const {
    for (size_t begin = 0, end = 1; begin < tokens.size(); begin = end++) {
      while (end < tokens.size() && positions[end] != 0) ++end;
      body(static_cast<int64_t>(begin), static_cast<int64_t>(end - begin));
    }
  }
};

class PackedDocuments : public ::testing::TestWithParam<Case> {
 protected:
  // Relative. What a document gives alone is computed in products of other sizes: in f32 each of them, in
  // f64 only the sums over tokens have another order. bf16 stores the same sums to 8 bits, half an ulp apart.
  double tolerance(int64_t roundings) const { return test::random_walk(GetParam().dtype, roundings); }
};

TEST_P(PackedDocuments, AreWhatTheyAreAlone) {
  const Packed packed;
  Model together(GetParam()), apart(GetParam());
  const std::vector<double> losses = together.add(packed.batch());
  int64_t documents = 0;
  packed.for_each_document([&](int64_t first, int64_t length) {
    const std::vector<double> alone =
        apart.add({packed.tokens.data() + first, packed.targets.data() + first, 1, length});
    const std::vector<double> part(losses.begin() + first, losses.begin() + first + length);
    if (GetParam().dtype == DType::f64) {
      EXPECT_EQ(part, alone) << "document at " << first;
    } else {
      test::expect_within(part, alone, tolerance(256) * test::largest(alone), fmt::format("at {}", first));
    }
    ++documents;
  });
  EXPECT_EQ(documents, 13);  // one is cut by the border of the sequences
  for (const nn::ParamEntry& entry : together.store().entries()) {
    const std::vector<double> want = to_doubles(apart.store().find(entry.spec.name).param.grad);
    EXPECT_GT(test::largest(want), 0) << entry.spec.name;
    test::expect_within(to_doubles(entry.param.grad), want, tolerance(1024) * test::largest(want),
                        entry.spec.name);
  }
}

// With the positions that a document has in its sequence, so that only attention is under test.
TEST_P(PackedDocuments, AttendToThemselvesWhereverTheyStand) {
  if (GetParam().positions == model::Positions::rope) GTEST_SKIP() << "knows differences of positions only";
  const Packed packed;
  Model together(GetParam()), apart(GetParam());
  model::TokenBatch batch = packed.batch();
  batch.positions = nullptr;
  const std::vector<double> losses = together.add(batch);
  packed.for_each_document([&](int64_t first, int64_t length) {
    std::vector<int32_t> places;
    for (int64_t i = first; i < first + length; ++i) {
      places.push_back(static_cast<int32_t>(i % Packed::kLength));
    }
    const std::vector<double> alone = apart.add(
        {packed.tokens.data() + first, packed.targets.data() + first, 1, length, places.data(), nullptr});
    const std::vector<double> part(losses.begin() + first, losses.begin() + first + length);
    test::expect_within(part, alone, tolerance(256) * test::largest(alone), fmt::format("at {}", first));
  });
}

// Else the tests above would pass with options that do nothing.
TEST_P(PackedDocuments, EachOptionChangesTheLosses) {
  const Packed packed;
  Model model(GetParam());
  std::vector<std::vector<double>> losses;
  for (const bool positions : {false, true}) {
    for (const bool attention : {false, true}) {
      model::TokenBatch batch = packed.batch();
      if (!positions) batch.positions = nullptr;
      if (!attention) batch.first_key = nullptr;
      losses.push_back(model.add(batch));
    }
  }
  const auto distance = [&](size_t a, size_t b) {
    double sum = 0;
    for (size_t i = 0; i < losses[a].size(); ++i) sum += std::abs(losses[a][i] - losses[b][i]);
    return sum / static_cast<double>(losses[a].size());
  };
  EXPECT_GT(distance(0, 1), 1e-3);
  EXPECT_GT(distance(0, 2), 1e-3);
  if (GetParam().positions == model::Positions::learned) {
    EXPECT_GT(distance(1, 3), 1e-3);
  }
}

const model::BlockSpec kDense{}, kMoe{.ffn = model::FfnKind::moe, .experts = 4},
    kResidual{.ffn = model::FfnKind::residual_moe, .experts = 4};
constexpr auto kLearned = model::Positions::learned, kRope = model::Positions::rope;
INSTANTIATE_TEST_SUITE_P(Models, PackedDocuments,
                         ::testing::Values(Case{"dense_f64", kLearned, kDense, DType::f64},
                                           Case{"dense_rope_f64", kRope, kDense, DType::f64},
                                           Case{"moe_f64", kLearned, kMoe, DType::f64},
                                           Case{"residual_moe_rope_f64", kRope, kResidual, DType::f64},
                                           Case{"dense_f32", kLearned, kDense, DType::f32},
                                           Case{"moe_rope_f32", kRope, kMoe, DType::f32},
                                           Case{"dense_bf16", kLearned, kDense, DType::bf16}),
                         [](const auto& test) { return test.param.name; });

// Shards of random documents of 1 to 20 tokens that end in kEod.
void write_documents(const std::filesystem::path& file) {
  ShardInfo info;
  info.vocab_size = 61, info.eod_id = kEod;
  ShardBuilder builder(info);
  const Philox rng(3, Purpose::test);
  uint64_t draw = 0;
  for (int document = 0; document < 200; ++document) {
    std::vector<int32_t> ids(rng.bits(draw++) % 20);
    for (int32_t& id : ids) id = static_cast<int32_t>(1 + rng.bits(draw++) % 60);
    ids.push_back(kEod);
    builder.append(ids);
  }
  builder.write(file);
}

class PackedRun : public ::testing::Test {
 protected:
  train::RunConfig config(Reproducible mode) const {
    train::RunConfig c = test::small_pr_moe(folder_.path());
    c.reproducible = mode;
    c.data.train = c.data.valid = folder_ / "documents.h5";
    c.data.reset_positions = c.data.reset_attention = true;
    return c;
  }
  void SetUp() override { write_documents(folder_ / "documents.h5"); }
  TempDir folder_;
};

TEST_F(PackedRun, HasTheSameBitsOnAnyNumberOfRanksInStrictMode) {
  const TrainingRun alone = train_on_threads(config(Reproducible::strict), 1, 3);
  for (const int ranks : {2, 4}) {
    expect_same_run(train_on_threads(config(Reproducible::strict), ranks, 3), alone,
                    fmt::format("{} ranks", ranks));
  }
}

TEST_F(PackedRun, IsNotChangedByRecomputing) {
  train::RunConfig c = config(Reproducible::layout);
  for (const auto positions : {kLearned, kRope}) {
    c.model.positions = positions;
    c.train.recompute = false;
    const TrainingRun kept = train_on_threads(c, 2, 2);
    c.train.recompute = true;
    expect_same_run(train_on_threads(c, 2, 2), kept, "recomputed");
  }
}

TEST_F(PackedRun, EachOptionActsInTrainingAndValidation) {
  std::vector<double> train, valid;
  for (const bool positions : {false, true}) {
    for (const bool attention : {false, true}) {
      train::RunConfig c = config(Reproducible::layout);
      c.data.reset_positions = positions, c.data.reset_attention = attention;
      const TrainingRun run = train_on_threads(c, 1, 1);
      train.push_back(run.steps[0].loss), valid.push_back(run.validation.loss);
    }
  }
  for (std::vector<double>* losses : {&train, &valid}) {
    std::sort(losses->begin(), losses->end());
    EXPECT_EQ(std::adjacent_find(losses->begin(), losses->end()), losses->end()) << "two are equal";
  }
}

TEST_F(PackedRun, TakesTheMemoryThatWasPlanned) {
  train::RunConfig c = config(Reproducible::layout);
  c.model.blocks = {{.repeat = 2, .pattern = {{}}}};
  const train::MemoryPlan plan = test::plan_on_threads(c, 1);
  train_on_threads(c, 1, 1, [&](const train::Trainer& trainer) {
    EXPECT_EQ(plan.activations, trainer.high_water().activations);
    EXPECT_EQ(plan.activation_gradients, trainer.high_water().activation_gradients);
    EXPECT_EQ(plan.workspace, trainer.high_water().workspace);
  });
}

}  // namespace
}  // namespace ziggurat
