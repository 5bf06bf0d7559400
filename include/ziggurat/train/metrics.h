// The record of a step: one progress line for people, the same values as JSON lines for programs.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace ziggurat::train {

struct LayerLoad {
  int64_t layer = 0;
  std::vector<double> tokens_per_expert;  // routed before drops, over the step
  double imbalance = 0;                   // busiest expert / mean
  double drop_rate = 0;                   // dropped / chosen (token, expert) pairs
  double entropy = 0;                     // of the router's probabilities, nats, mean over tokens
  double balance_loss = 0, z_loss = 0;    // means over micro-batches, before their coefficients
};

struct StepRecord {
  int64_t step = 0, total_steps = 0;
  int64_t tokens = 0, total_tokens = 0;  // consumed after the step
  int64_t samples = 0;
  double loss = 0;                                       // cross-entropy per counted token, nats
  double auxiliary_loss = 0;                             // all other parts of it
  std::vector<std::pair<std::string, double>> losses;    // its parts by name, as they count in it
  std::vector<std::pair<std::string, double>> settings;  // numbers that the objective went by, by name
  double lr = 0;
  double grad_norm = 0;                                    // before clipping
  std::vector<std::pair<std::string, double>> grad_norms;  // of optimizer.clip_groups, by name
  std::string left_out;                                    // why there was no update; empty: there was one
  int64_t updates_left_out = 0;                            // of the run so far
  double step_seconds = 0, data_seconds = 0;
  double tokens_per_second = 0;
  double flops_per_second = 0;
  double roof_fraction = 0;  // of the measured GEMM roof of all ranks; 0: not measured yet
  int64_t memory_bytes = 0;  // resident, the largest over ranks
  double eta_seconds = 0;
  int64_t launches = 0, graphs = 0, waits = 0;  // of rank 0's device (runtime/device_work.h)
  std::vector<LayerLoad> layers;

  double part(const std::string& name) const;  // of the loss; 0: it has none of that name
  double worst_imbalance() const;
  double drop_rate() const;  // mean over layers
};

// step 1200/286102 | 1.26B/300B tok | loss 3.2145 | lr 5.9e-05 | gnorm 0.42 | 512k tok/s | 41% roof | ...
std::string progress_line(const StepRecord& record, bool exact);
std::string to_json(const StepRecord& record);

// Makes metrics.jsonl what a run that goes on after `step` has to tell: drops records of later steps, those
// of steps that were done a second time, and lines that are cut off. Rewritten in one step, if at all; a
// missing file is fine. Throws Error(config) naming the file.
void cut_metrics(const std::string& path, int64_t step);

// Does a record say that the run ended at this step?
bool says_ended(const std::string& path, int64_t step);

int64_t resident_bytes();  // of this process

}  // namespace ziggurat::train
