// Results as lm-evaluation-harness writes them, so that its readers read ours.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/eval/evaluate.h>

namespace ziggurat::eval {

// What was evaluated.
struct Subject {
  std::string model = {};  // the checkpoint's folder
  int64_t step = 0;
  std::string weight_hash =
      {};                      // the same for the same weights, whatever files and ranks they are spread over
  std::string tokenizer = {};  // fingerprint
  std::string precision = {};
  int64_t length = 0;  // tokens that the model sees at once
  int64_t limit = 0;   // documents of a task; 0: all
};

struct Evaluated {
  Task task;
  TaskResult result;
};

// current: results.<task>."<metric>,<filter>"; v0: results.<task>.<metric>, each with its standard error, and
// versions, config; under "ziggurat" what lm-eval has no place for.
nlohmann::ordered_json report(const Subject& subject, Form form, const std::vector<Evaluated>& evaluated);

// A line of JSON for every continuation: its task, document, text, log_likelihood and whether it is greedy.
// Answers that the model writes have none.
std::string score_lines(const std::vector<Evaluated>& evaluated);

// For people: a line a metric.
std::string table(const std::vector<Evaluated>& evaluated);

}  // namespace ziggurat::eval
