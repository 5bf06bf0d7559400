// What a run's metrics.jsonl tells, read back for people to look at.
#pragma once

#include <cstdint>
#include <ios>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace ziggurat::report {

struct StepPoint {
  int64_t step = 0, tokens = 0;
  double flops = 0, seconds = 0;  // of all steps so far
  double loss = 0, lr = 0, grad_norm = 0, tokens_per_second = 0, roof = 0, memory = 0;
  double imbalance = 0, drop = 0;  // worst and mean of the layers
  double eta = 0;
  std::map<std::string, double> parts;  // of the loss, and what else the objective tells, by name
};

struct ValidationPoint {
  std::string split;
  int64_t step = 0;
  double loss = 0, accuracy = 0;
};

struct TaskPoint {
  std::string name;
  int64_t step = 0;
  double value = 0;
};

struct SampleText {
  int64_t step = 0;
  std::string prompt, text;
};

// A layer's experts, in at most kColumns columns of equally many steps.
inline constexpr size_t kColumns = 240;
struct LayerColumn {
  int64_t last_step = 0, steps = 0;
  std::vector<double> tokens;                   // of each expert
  double imbalance = 0, drop = 0, entropy = 0;  // sums over the steps
};
struct LayerHistory {
  int64_t layer = 0, experts = 0;
  int64_t width = 1;  // steps of a column
  std::vector<LayerColumn> columns;
};

struct RunHistory {
  std::string folder, name;
  std::string config;  // text of config.yaml
  int64_t total_steps = 0;
  std::vector<StepPoint> steps;
  std::vector<ValidationPoint> validations;
  std::vector<TaskPoint> tasks;
  std::vector<SampleText> samples;
  std::vector<LayerHistory> layers;
  std::vector<std::string> starts;  // times
  bool ended = false;
  int64_t unreadable = 0;  // lines

  // One record, in the order of the file. Of a step that is told twice the later record counts, and what came
  // between is forgotten: a run went on from an earlier checkpoint.
  void add(const nlohmann::json& record);
};

// Reads a run that may still be going on.
class HistoryReader {
 public:
  // A run's folder, or its metrics.jsonl. Throws Error(data) naming what is missing, and the cure.
  explicit HistoryReader(const std::string& path);

  // Reads the whole lines that have been written since the last time; returns whether there were any.
  bool read_more();

  const RunHistory& history() const { return history_; }
  RunHistory take() { return std::move(history_); }

 private:
  std::string file_;
  std::streamoff read_ = 0;
  RunHistory history_;
};

RunHistory read_history(const std::string& path);

}  // namespace ziggurat::report
