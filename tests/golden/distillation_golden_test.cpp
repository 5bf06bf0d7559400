// Six steps of a student, three of them with a teacher, against an independent PyTorch program in float64:
// parts of the loss, gradients, norms and final weights (scripts/golden/make_distillation_goldens.py).
#include <algorithm>
#include <cmath>

#include "tests/support/golden_file.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/objective/distillation.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

model::ModelConfig model_of(const GoldenFile& file, const std::string& which) {
  model::ModelConfig c;
  c.vocab_size = file.whole("vocabulary");
  c.vocab_multiple = 1;
  c.max_sequence = file.whole("sequence");
  c.hidden = file.whole(which + "_width");
  c.heads = file.whole("heads");
  c.ffn_hidden = file.whole(which + "_hidden");
  c.norm_eps = file.number("norm_eps");
  c.dropout = {};
  c.moe.drop = moe::DropPolicy::position;
  c.moe.capacity_factor = file.number("capacity_factor");
  c.moe.min_capacity = file.whole("min_capacity");
  c.moe.balance_coefficient = file.number("aux_coefficient");
  for (const std::string& word : file.words(which + "_layers")) {
    const size_t colon = word.find(':');
    model::BlockSpec block;
    if (colon != std::string::npos) {
      block.ffn = word.starts_with("residual") ? model::FfnKind::residual_moe : model::FfnKind::moe;
      block.experts = std::stoll(word.substr(colon + 1));
    }
    c.blocks.push_back({1, {block}});
  }
  return c;
}

struct Loaded final : objective::Teacher {
  Loaded(const GoldenFile& file, const std::string& which, const std::string& prefix, DType dtype,
         bool trainable, Communicator& world)
      : groups(world, ParallelPlan(1, model_of(file, which).expert_parallel_sizes())),
        store({.compute = dtype, .trainable = trainable}),
        gpt(model_of(file, which), store, groups) {
    store.finalize();
    load_parameters(store, file, prefix);
  }
  const model::Gpt& model() const override { return gpt; }
  int64_t bytes() const override { return 0; }
  const std::string& weight_hash() const override { return hash; }

  ProcessGroups groups;
  nn::ParamStore store;
  model::Gpt gpt;
  std::string hash = "golden";
};

class DistillationGolden : public testing::TestWithParam<DType> {};

TEST_P(DistillationGolden, PartsGradientsAndWeightsOfSixSteps) {
  const OneThread one_thread;
  const DType dtype = GetParam();
  const GoldenFile file = GoldenFile::committed("distillation");
  const auto world = make_self_communicator();
  Loaded student(file, "student", "init.", dtype, true, *world);
  const int64_t batch = file.whole("batch"), length = file.whole("sequence"), steps = file.whole("steps"),
                micro_batches = file.whole("micro_batches"), tokens_of_step = batch * length * micro_batches;
  objective::DistilConfig distil;
  distil.weight.start = file.number("weight");
  distil.weight.until = file.whole("until") * tokens_of_step;
  distil.temperature = file.number("temperature");
  int times_loaded = 0;
  objective::Distillation objective(
      student.gpt, {}, distil, steps * tokens_of_step,
      [&] {
        ++times_loaded;
        return std::make_unique<Loaded>(file, "teacher", "teacher.", dtype, false, *world);
      },
      Device::cpu);
  parallel::GradientReducer reducer(student.store, student.groups, 1);
  const OptimizerConfig optimizer_config{.beta1 = file.number("beta1"),
                                         .beta2 = file.number("beta2"),
                                         .eps = file.number("adam_eps"),
                                         .weight_decay = file.number("weight_decay"),
                                         .clip_grad = file.number("clip")};
  Optimizer optimizer(student.store, student.groups, optimizer_config);
  Arena activations("a", 1 << 28), gradients("g", 1 << 28), workspace("w", 1 << 28);
  Stream stream;
  Tape tape(activations, gradients, workspace, stream);
  const std::vector<int64_t> samples = file.ints("tokens");
  const double tolerance = random_walk(dtype, 2000), count = static_cast<double>(tokens_of_step);

  for (int64_t step = 0; step < steps; ++step) {
    const auto i = static_cast<size_t>(step);
    EXPECT_EQ(objective.begin_step(step * tokens_of_step, stream), step == 0 || step == file.whole("until"));
    EXPECT_EQ(objective.teacher() != nullptr, step < file.whole("until"));
    reducer.begin_step(stream);
    std::vector<double> sums(objective.parts().size());
    for (int64_t m = 0; m < micro_batches; ++m) {
      std::vector<int32_t> tokens, targets;
      for (int64_t s = 0; s < batch; ++s) {
        const auto* const sample = samples.data() + ((step * micro_batches + m) * batch + s) * (length + 1);
        tokens.insert(tokens.end(), sample, sample + length);
        targets.insert(targets.end(), sample + 1, sample + length + 1);
      }
      tape.begin(
          {.step = step, .index = m, .count = micro_batches, .first = m == 0, .token_weight = 1 / count});
      const std::vector<double> parts =
          to_doubles(objective.loss(tape, {tokens.data(), targets.data(), batch, length}));
      tape.backward();
      for (size_t part = 0; part < parts.size(); ++part) sums[part] += parts[part];
    }
    ASSERT_EQ(objective.parts().at(1).name, "distillation");
    ASSERT_EQ(objective.parts().at(2).name, "balance");
    EXPECT_NEAR(sums[0] / count, file.doubles("loss.ce")[i], tolerance * file.doubles("loss.ce")[i]) << step;
    EXPECT_NEAR(sums[1] / count, file.doubles("loss.distillation")[i], tolerance * 10) << step;
    EXPECT_NEAR(sums[2] / static_cast<double>(micro_batches), file.doubles("loss.balance")[i], tolerance)
        << step;
    reducer.reduce(stream);
    if (step == 0) {
      for (const nn::ParamEntry& entry : student.store.entries()) {
        const std::vector<double> want = file.doubles("grad." + entry.spec.name);
        expect_within(to_doubles(entry.param.grad), want, tolerance * largest(want), entry.spec.name);
      }
    }
    const Tensor clipped =
        optimizer.update(file.number("lr"), reducer.squared_norms(stream), {}, workspace, stream);
    const double norm = file.doubles("grad_norm")[i];
    EXPECT_NEAR(clipped.data<double>()[0], norm, tolerance * norm) << step;
  }
  EXPECT_EQ(times_loaded, 1);
  for (const nn::ParamEntry& entry : student.store.entries()) {
    if (entry.spec.name.ends_with("attention.qkv.bias")) continue;  // see FORMAT.md
    const std::vector<double> want = file.doubles("final." + entry.spec.name);
    const double least =
        dtype == DType::f64 ? 1e-6 : 2e-4;  // a step of Adam is lr, however small its gradient
    expect_within(to_doubles(entry.param.value), want, least, entry.spec.name);
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, DistillationGolden, testing::Values(DType::f64, DType::f32),
                         [](const auto& test) { return std::string(to_string(test.param)); });

}  // namespace
}  // namespace ziggurat::test
