#include "tests/support/training.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat::test {

namespace {

train::RunConfig small(const std::string& output) {
  train::RunConfig c;
  c.name = "small";
  c.output = output;
  c.precision = train::Precision::fp32;
  c.model.vocab_size = 61;
  c.model.vocab_multiple = 16;
  c.model.max_sequence = 16;
  c.model.hidden = 32;
  c.model.heads = 4;
  c.model.init_std = 0.1;
  c.model.dropout = {0.1, 0.1, 0.1};
  c.data.train = c.data.valid = "synthetic";
  c.batch.sequence_length = 16;
  c.batch.micro_batch = 2;
  c.batch.global_batch = 16;
  c.train.tokens = 1 << 20;
  c.optimizer.lr = 1e-2;
  c.optimizer.min_lr = 1e-3;
  c.optimizer.warmup_tokens = 0;
  c.optimizer.decay_tokens = 1 << 20;
  c.eval.sequences = 6;  // 3 micro-batches: some ranks have none of their own
  c.checkpoint.resume = train::Resume::never;
  return c;
}

// Values of the global tensor from element `first` on, to the rows in which they lie.
void collect(const std::string& tensor, const Shape& shape, int64_t first, const Tensor& values,
             ByName& all) {
  const auto width = static_cast<size_t>(shape.numel() / shape[0]);
  const std::vector<double> flat = to_doubles(values);
  for (size_t i = 0; i < flat.size();) {
    const size_t row = (static_cast<size_t>(first) + i) / width,
                 at = (static_cast<size_t>(first) + i) % width;
    const std::string name = fmt::format("{}[{}]", tensor, row);
    std::vector<double>& whole = all.try_emplace(name, width, std::nan("")).first->second;
    for (size_t c = at; c < width && i < flat.size(); ++c, ++i) {
      if (!std::isnan(whole[c])) {
        EXPECT_EQ(whole[c], flat[i]) << "on two ranks: " << name;
      }
      whole[c] = flat[i];
    }
  }
}

template <class Value>
std::vector<double> column(const std::vector<train::StepRecord>& steps, Value train::StepRecord::*value) {
  std::vector<double> all;
  for (const train::StepRecord& step : steps) all.push_back(step.*value);
  return all;
}

}  // namespace

train::RunConfig small_dense(const std::string& output) {
  train::RunConfig c = small(output);
  c.model.blocks = {{.repeat = 2, .pattern = {{}}}};
  return c;
}

train::RunConfig small_pr_moe(const std::string& output, int expert_parallel) {
  train::RunConfig c = small(output);
  c.model.moe.min_capacity = 1;  // 8 tokens an expert at most 4 experts: drops happen
  for (const int experts : {2, 4, 8}) {
    const int ep = std::min(expert_parallel, experts);
    c.model.blocks.push_back(
        {.repeat = 1,
         .pattern = {{}, {.ffn = model::FfnKind::residual_moe, .experts = experts, .expert_parallel = ep}}});
  }
  return c;
}

std::vector<double> TrainingRun::losses() const { return column(steps, &train::StepRecord::loss); }
std::vector<double> TrainingRun::grad_norms() const { return column(steps, &train::StepRecord::grad_norm); }

TrainingRun train_on_threads(const train::RunConfig& config, int ranks, int64_t steps,
                             const std::function<void(train::Trainer&)>& afterwards,
                             const std::function<void(Communicator&)>& before) {
  TrainingRun run;
  std::mutex mutex;
  run_on_threads(ranks, [&](Communicator& world) {
    if (before) before(world);
    train::Trainer trainer(config, world);
    std::vector<train::StepRecord> records;
    for (int64_t i = 0; i < steps; ++i) records.push_back(trainer.step());
    const train::Validation validation = trainer.validate();
    if (afterwards) afterwards(trainer);

    const std::lock_guard lock(mutex);
    if (world.rank() == 0) run.steps = records, run.validation = validation;
    const nn::ParamStore& store = trainer.params();
    for (const nn::ParamEntry& entry : store.entries()) {
      const OptimizerState& state = trainer.optimizer_state();
      const IndexRange owned = store.owned(entry);
      const std::string& name = entry.spec.name;
      const Shape& shape = entry.spec.global_shape;
      const auto collect_held = [&](const std::string& kind, int64_t begin, const Tensor& values,
                                    ByName& all) {
        nn::for_each_held_run(entry.spec, begin, begin + values.numel(),
                              [&](int64_t first, int64_t at, int64_t n) {
                                collect(kind + name, shape, first, values.rows(at, at + n), all);
                              });
      };
      collect_held("", owned.begin, state.master(entry), run.weights);
      for (const OptimizerState::Moment& moment : state.moments(entry)) {
        if (moment.global_shape == shape) {
          collect_held(moment.name + " ", owned.begin, moment.held, run.moments);
        } else {
          collect(moment.name + " " + name, moment.global_shape, moment.first, moment.held, run.moments);
        }
      }
      collect_held("", owned.begin, store.owned_gradient(entry), run.gradients);
      collect_held("value ", 0, entry.param.value.reshape({entry.numel}), run.weights);
    }
  });
  return run;
}

train::MemoryPlan plan_on_threads(const train::RunConfig& config, int ranks) {
  train::MemoryPlan plan;
  run_on_threads(ranks, [&](Communicator& world) {
    if (world.rank() == 0) plan = train::plan_memory(config, ranks);
  });
  return plan;
}

void expect_same_bits(const ByName& got, const ByName& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (const auto& [name, values] : want) {
    ASSERT_TRUE(got.contains(name)) << what << ": " << name;
    ASSERT_EQ(got.at(name), values) << what << ": " << name;
  }
}

void expect_same_run(const TrainingRun& got, const TrainingRun& want, const std::string& what) {
  EXPECT_EQ(got.losses(), want.losses()) << what;
  EXPECT_EQ(got.grad_norms(), want.grad_norms()) << what;
  EXPECT_EQ(got.validation.loss, want.validation.loss) << what;
  EXPECT_EQ(got.validation.accuracy, want.validation.accuracy) << what;
  ASSERT_EQ(got.steps.size(), want.steps.size()) << what;
  for (size_t i = 0; i < want.steps.size(); ++i) {
    EXPECT_EQ(got.steps[i].auxiliary_loss, want.steps[i].auxiliary_loss) << what << ", step " << i;
    EXPECT_EQ(got.steps[i].drop_rate(), want.steps[i].drop_rate()) << what << ", step " << i;
    EXPECT_EQ(got.steps[i].worst_imbalance(), want.steps[i].worst_imbalance()) << what << ", step " << i;
  }
  expect_same_bits(got.gradients, want.gradients, what + ", gradients");
  expect_same_bits(got.weights, want.weights, what + ", weights");
  expect_same_bits(got.moments, want.moments, what + ", moments");
}

void expect_close(const ByName& got, const ByName& want, double tolerance, double floor,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (const auto& [name, values] : want) {
    ASSERT_TRUE(got.contains(name)) << what << ": " << name;
    const std::vector<double>& others = got.at(name);
    ASSERT_EQ(others.size(), values.size()) << what << ": " << name;
    double largest = floor;
    for (const double v : values) largest = std::max(largest, std::abs(v));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(others[i], values[i], tolerance * largest) << what << ": " << name << " element " << i;
    }
  }
}

}  // namespace ziggurat::test
