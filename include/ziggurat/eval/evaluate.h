// A task's metrics for a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/data/tokenizer.h>
#include <ziggurat/eval/scorer.h>
#include <ziggurat/eval/task.h>

namespace ziggurat::eval {

struct Metric {
  std::string name;  // lm-eval's
  double value = 0;
  // Of the mean over documents: sample deviation / sqrt(documents), NaN for a single one. perplexity: that of
  // the mean log-likelihood, times the perplexity (first order; lm-eval draws bootstrap samples instead).
  double standard_error = 0;
  bool higher_is_better = true;
};

struct TaskResult {
  std::vector<Metric> metrics;
  int64_t requests = 0;  // scored
  double seconds = 0;
  std::vector<Score> scores;  // of every continuation of every document, in their order
};

// A context and its continuation as token ids, exactly as lm-eval's form encodes them.
//   v0       each for itself
//   current  together, and cut where the context alone would end; white space at the end of the context goes
//            with the continuation
// An empty context is the end-of-document token. Throws Error(data) where the tokenizer has none, and for a
// continuation without tokens of its own.
TokenRequest encode_request(Encoder& encoder, int32_t eod, const std::string& context,
                            const std::string& continuation, Form form);

// Throws what evaluate() would of a task that does not fit the tokenizer, or a model that sees `length`
// tokens at once: before hours of other tasks, or of training, are spent. Reads every text.
void check_task(const Task& task, Form form, const Tokenizer& tokenizer, int64_t length);

// Bytes of a device that evaluate() takes: as Scorer::device_bytes().
int64_t device_bytes(const Task& task, Form form, const Tokenizer& tokenizer, const Scorer& scorer);

// Collective, with the same task on every rank; all get the same result. A task without documents is an
// Error(argument).
TaskResult evaluate(const Task& task, Form form, const Tokenizer& tokenizer, Scorer& scorer,
                    const Scorer::Progress& progress = {});

}  // namespace ziggurat::eval
