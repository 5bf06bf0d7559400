// Whole training runs on ranks that are threads, and everything they leave behind, by global name.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::test {

// A PR-MoE of three pairs of layers with 2, 4 and 8 experts, shared by at most `expert_parallel` ranks; 8
// micro-batches a step, so 8 lanes. Dropout 0.1 everywhere, random token selection, synthetic data, no
// checkpoints; seconds for a few steps. `output` is a folder of the test's own.
train::RunConfig small_pr_moe(const std::string& output, int expert_parallel = 4);
train::RunConfig small_dense(const std::string& output);

// Values by "name[row]", a row being one of the leading dim: so every expert has an entry of its own.
using ByName = std::map<std::string, std::vector<double>>;

struct TrainingRun {
  std::vector<train::StepRecord> steps;  // rank 0's
  train::Validation validation;          // after the last step
  ByName gradients;                      // of the last step, reduced, before clipping
  ByName weights, moments;               // after the last step

  std::vector<double> losses() const;
  std::vector<double> grad_norms() const;
};

// Constructs a Trainer on `ranks` ranks (so it resumes, if the config says so), takes `steps` steps and
// collects. Fails the test where two ranks that hold the same row disagree in a bit. `afterwards` runs on
// every rank, e.g. to save, and `before` too, before there is a trainer.
TrainingRun train_on_threads(const train::RunConfig& config, int ranks, int64_t steps,
                             const std::function<void(train::Trainer&)>& afterwards = {},
                             const std::function<void(Communicator&)>& before = {});

// The plan, made on a thread like those of train_on_threads: some scratch is per thread of a rank.
train::MemoryPlan plan_on_threads(const train::RunConfig& config, int ranks);

// Fails the test, naming the first difference, unless all bits agree.
void expect_same_bits(const ByName& got, const ByName& want, const std::string& what);
void expect_same_run(const TrainingRun& got, const TrainingRun& want, const std::string& what);

// |got - want| <= tolerance * (largest |want| of the entry, or `floor` if that is larger).
void expect_close(const ByName& got, const ByName& want, double tolerance, double floor,
                  const std::string& what);

}  // namespace ziggurat::test
