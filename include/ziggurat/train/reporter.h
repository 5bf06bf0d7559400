// What a run tells: records in metrics.jsonl, lines for people.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/checkpoint/saver.h>
#include <ziggurat/train/evaluation.h>
#include <ziggurat/train/metrics.h>
#include <ziggurat/train/run_folder.h>
#include <ziggurat/train/train_step.h>
#include <ziggurat/watch/slow_ranks.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::train {

struct NamedScore {
  std::string name;
  double value = 0;
};

struct Sample {  // what the model writes after a prompt
  std::string prompt, text;
};

class Reporter {
 public:
  // All must outlive it.
  Reporter(const RunConfig& config, const Training& training, RunFolder& folder);

  // The record of the step that was done last, in so many seconds; memory, loads and device work are the
  // caller's to add.
  StepRecord record(const StepPlan& plan, const StepResult& result, int64_t total_steps, double seconds,
                    double data_seconds);

  void tell(const StepRecord& record);
  void tell(const Validation& validation, Split split, const char* what);
  void tell(const std::vector<NamedScore>& scores);
  void tell(const std::vector<Sample>& samples);
  void tell(const watch::SlowRanks::Verdict& rank);
  void tell(const SaveOutcome& save);
  void tell_stop(watch::StopRequest why);
  // The run went back from this step to where it stands now, and goes on without those samples.
  void tell_rewind(int64_t from_step, const IndexRange& skipped, const std::string& why);
  void tell_end();

  bool knows_roof() const { return roof_ > 0; }
  void set_roof(double flops_per_second);  // of all ranks

 private:
  const RunConfig& config_;
  const Training& training_;
  RunFolder& folder_;
  double flops_per_token_;
  double roof_ = 0;              // 0: not measured
  double seconds_per_step_ = 0;  // smoothed, for the ETA
};

}  // namespace ziggurat::train
