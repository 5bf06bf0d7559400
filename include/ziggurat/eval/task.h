// Zero-shot tasks, in the exact words of lm-evaluation-harness: files of public data sets become documents,
// and these become requests to a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ziggurat::eval {

// v0: lm-eval 0.2.0, with which the authors of DeepSpeed-MoE (arXiv 2201.05596) evaluated. current: today's.
enum class Form { v0, current };

// How a document's results become metrics.
enum class Rule {
  last_word,   // one continuation: is it the greedy one, and how likely?
  choice,      // is the gold continuation the likeliest one?
  any_greedy,  // is any of the continuations the greedy one?
  generated,   // does the model write one of the answers?
};

struct Document {
  std::string context = {};
  std::vector<std::string> continuations = {};  // each begins with the space before it
  int64_t gold = 0;                             // choice: index into continuations
  std::vector<std::string> answers = {};        // generated
};

struct Task {
  std::string name = {};     // as lm-eval calls it in this form
  std::string version = {};  // lm-eval's, of the task
  Rule rule = Rule::choice;
  bool by_length = false;        // choice: also acc_norm, where log-likelihoods are divided by characters
  std::string accuracy = "acc";  // what the metric of any_greedy and last_word is called
  std::string perplexity = "perplexity";
  std::vector<std::string> until = {};  // generated: where the model's text ends
  int64_t max_tokens = 256;             // generated: at most so many
  // The order in which lm-eval asks for a document's continuations; empty: once each, in their order.
  std::vector<size_t> request_order = {};
  std::string recorded_hash =
      {};                 // request_hash() of the whole public set as lm-eval has it on record; or empty
  std::string note = {};  // where it is not quite what lm-eval asks in this form; or empty
  std::vector<Document> documents = {};
  int64_t total_documents = 0;  // before a limit
};

struct TaskOptions {
  std::filesystem::path data = {};  // folder of the public sets
  Form form = Form::current;
  int64_t limit = 0;      // the first documents only, in lm-eval's order; 0: all
  bool any_size = false;  // accept a set with another number of rows than the public one
};

// `name`: lambada, piqa, boolq, race, triviaqa, webqs (or lm-eval's name of one), or the path of a task file:
// JSONL, all lines of one kind,
//   {"context": .., "continuation": ".."}                          last_word
//   {"context": .., "continuation": ["..", ..], "gold": INDEX}     choice, with acc_norm
//   {"context": .., "until": ["..", ..], "answers": ["..", ..]}    generated
// Throws Error(argument) for an unknown name; Error(data) naming file and line for what is missing or broken,
// and the number of rows beside the expected one where it is another set or cut.
Task load_task(const std::string& name, const TaskOptions& options);

std::vector<std::string> known_tasks();

// One request as lm-eval has it.
struct Request {
  size_t document = 0;
  std::string context;
  std::string continuation;  // empty for generated
};
// In lm-eval's order.
std::vector<Request> requests_of(const Task& task);

// SHA-256 of lm-eval's own JSON of them: what its test data records for every task.
std::string request_hash(const Task& task);

// The requests as JSONL: task, document, context and continuation (or until), and the gold.
std::string dump_requests(const Task& task);

}  // namespace ziggurat::eval
