// The training loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/train/batch_reader.h>
#include <ziggurat/train/metrics.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/run_folder.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

struct Validation {
  double loss = 0;        // cross-entropy per counted token, nats
  double accuracy = 0;    // share of counted tokens whose arg-max is right
  int64_t tokens = 0;     // counted
  int64_t sequences = 0;  // evaluated
};

struct NamedScore {
  std::string name;
  double value = 0;
};

class Trainer {
 public:
  // Collective over `world`, which must outlive the trainer. Locks the output folder as long as it lives.
  // Errors are those of the config, the folder, the data and (on resume) the checkpoint; nothing in the
  // folder has changed then.
  Trainer(const RunConfig& config, Communicator& world);

  // Trains to the end: steps, validations, checkpoints, progress lines. Collective.
  void run();

  // What run() calls every eval.tasks_every steps and at the end, on every rank.
  using Evaluator = std::function<std::vector<NamedScore>(const model::Gpt&)>;
  void set_evaluator(Evaluator evaluator) { evaluator_ = std::move(evaluator); }

  StepRecord step();
  Validation validate();
  void save();  // throws Error(numeric), and writes nothing, for weights that are not finite or of no use

  int64_t steps_done() const { return step_; }
  int64_t consumed_samples() const { return consumed_samples_; }
  nn::ParamStore& params() { return store_; }
  const SampleSource& train_data() const { return *train_data_; }
  // Steps from now on keep their times in `profile`, which must outlive them; null: no times.
  void set_profile(Profile* profile) { stream_.set_profile(profile); }

  // What the arenas held at most so far: what plan_memory() foretells.
  struct HighWater {  // bytes
    int64_t activations = 0, activation_gradients = 0, workspace = 0;
    bool operator==(const HighWater&) const = default;
  };
  HighWater high_water() const {
    return {activations_.high_water(), gradients_.high_water(), workspace_.high_water()};
  }

 private:
  void tell_short_splits() const;
  void check_same_data() const;
  void resume();
  std::string load_newest_usable();          // the step directory it took; empty: there is none
  std::string load(CheckpointReader& from);  // what is wrong with its weights; empty: nothing
  std::string fault_of_weights();
  void sum_losses(const StepPlan& plan);
  void measure_roof();
  double count_tokens(const StepPlan& plan);
  void forward_backward(const StepPlan& plan, int64_t micro_batch);
  Validation evaluate(const SampleSource& source, Split split);
  StepRecord record(const StepPlan& plan, double grad_norm, double seconds);
  std::vector<LayerLoad> reduce_moe_stats();
  void report(const StepRecord& record);
  void report(const Validation& validation, Split split, const char* what);
  void report(const std::vector<NamedScore>& scores);

  RunConfig config_;
  Communicator& world_;
  RunFolder folder_;
  ProcessGroups groups_;
  nn::ParamStore store_;
  model::Gpt model_;
  parallel::GradientReducer reducer_;
  Optimizer optimizer_;
  std::unique_ptr<SampleSource> train_data_, valid_data_, test_data_;

  Arena activations_, gradients_, workspace_;
  Stream stream_;
  Tape tape_;
  BatchReader batches_;

  // Of the step under way: loss sums and auxiliary losses by global micro-batch number, zero for other ranks'
  // ones.
  std::vector<double> micro_losses_;
  double counted_tokens_ = 0;  // targets that count, over all ranks and micro-batches
  double data_seconds_ = 0;

  int64_t step_ = 0, consumed_samples_ = 0, total_steps_ = 0;
  Lineage lineage_;
  bool finished_ = false;  // an earlier start did all that this one was asked for
  double roof_ = 0;        // FLOP/s of all ranks; 0: not measured, outside run()
  double flops_per_token_ = 0;
  double seconds_per_step_ = 0;  // smoothed, for the ETA
  Evaluator evaluator_;
};

// A split as the config describes it, for a run of so many samples; null if it names none.
std::unique_ptr<SampleSource> open_split(const RunConfig& config, Split split, int64_t samples);

}  // namespace ziggurat::train
