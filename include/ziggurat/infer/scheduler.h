// Which rows of which texts the next forward reads: continuous batching over a cache in blocks.
//
// Each step takes the next token of every text that is being written and, as far as rows are left, pieces of
// prompts; texts join and leave between steps. A text that finds no block makes the youngest one give up its
// own and wait, to be read anew later. Blocks whose tokens a new text begins with are shared with it. None of
// this changes any text: what a row computes depends on no other row (ExecutorOptions::reproducible).
//
// Past the window. With rotary positions a text slides: positions go on, a row sees the last `window` of
// them, and blocks that nobody sees any more are freed; nothing is read twice. The keys that it sees were
// computed when they saw what lay before them, as in a model with sliding-window attention. With learned
// positions, of which there are so many and no more, a text that has filled the window begins anew with the
// later half of it: a token costs two on average, and sees between half a window and a whole one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <ziggurat/infer/block_pool.h>
#include <ziggurat/infer/executor.h>
#include <ziggurat/infer/sampler.h>

namespace ziggurat::infer {

// A text to be written.
struct TextRequest {
  int64_t id = 0;                    // the caller's name for it, of no other one that is under way
  std::vector<int32_t> prompt = {};  // at least one token; the model sees the last `window` of them
  int64_t max_new_tokens = 64;
  int32_t stop_token = -1;  // ends it; -1: none
  SamplingOptions sampling = {};
  int64_t text = 0;            // part of the name of its random numbers
  int64_t alternatives = -1;   // how many likely tokens are told with each token; -1: not even its own
  bool scores_prompt = false;  // the prompt's tokens after the first are told too
  bool shares_prefix = true;   // false: computes all of its prompt, as for measurements
};

struct Likelihood {
  double logprob = 0;                                         // nats
  std::vector<std::pair<int32_t, double>> alternatives = {};  // the likeliest first, without the token itself
};

enum class EndReason { stop, length, cancelled };

// Told of what happens to texts. May cancel any text, also the one that it is told of.
struct TextEvents {
  // A new token, or one of the prompt. The stop token is told as any other. likelihood: null unless asked
  // for.
  std::function<void(int64_t id, int32_t token, bool of_prompt, const Likelihood* likelihood)> token;
  std::function<void(int64_t id, EndReason)> end = {};
};

// What is to be found out at a wanted row of a pass.
struct RowTask {
  int32_t scored = -1;  // the token whose likelihood it is; -1: one is to be drawn
  SamplingOptions sampling = {};
  int64_t position = 0, text = 0;
  std::vector<int32_t> seen = {};  // where there is a repetition penalty
  int64_t alternatives = -1;
};
struct RowResult {
  int32_t token = 0;
  Likelihood likelihood = {};
};

// Of one rank.
struct RankPlan {
  Pass pass;
  std::vector<RowTask> tasks;  // of each wanted row
};

struct SchedulerOptions {
  int ranks = 1;                   // that read texts of their own
  int64_t blocks = 0, block = 16;  // of the cache of each rank
  int64_t window = 0;              // tokens that the model sees at once
  bool slides = false;             // see above
  int64_t step_rows = 512;         // of a rank in a step, at most
  int64_t texts = 256;             // of a rank under way, at most
};

// Counts since the start, and how things stand.
struct SchedulerCounts {
  int64_t steps = 0, rows = 0, tokens = 0;       // rows read, tokens drawn
  int64_t preempted = 0, shared_tokens = 0;      // tokens that were not read as another text had read them
  int64_t running = 0, waiting = 0, blocks = 0;  // now
};

class Scheduler {
 public:
  // Throws Error(argument) where the cache is too small for one text of a whole window.
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  const SchedulerOptions& options() const { return options_; }

  // Throws Error(argument) for an empty prompt or options out of range: check() alone, too.
  void submit(TextRequest request);
  static void check(const TextRequest& request);
  // Does nothing for a text that is not under way.
  void cancel(int64_t id);
  bool idle() const;  // no text is under way
  SchedulerCounts counts() const;

  // What each rank reads next; valid until commit(), or the next plan() if that step failed: then nothing of
  // it has happened.
  std::span<const RankPlan> plan(const TextEvents& events);
  // results[r]: of each wanted row of rank r.
  void commit(std::span<const std::vector<RowResult>> results, const TextEvents& events);

 private:
  struct Text;
  struct Rank;

  void end_cancelled(const TextEvents& events);
  void end_finished(Rank& rank, const TextEvents& events);
  void admit();
  bool admit(std::unique_ptr<Text>& text);
  int64_t take_known_blocks(BlockPool& pool, Text& text) const;
  bool is_being_read(const Rank& rank, const Text& text) const;
  void read(Rank& rank, RankPlan& plan, Text& text);
  int64_t make_room(Rank& rank, Text& text, int64_t rows);
  bool preempt_younger(Rank& rank, const Text& than);
  void release(BlockPool& pool, Text& text) const;
  void advance(Rank& rank, Text& text);
  void take(Text& text, const RowTask& task, const RowResult& result, const TextEvents& events);

  SchedulerOptions options_;
  std::deque<std::unique_ptr<Text>> waiting_;
  std::vector<Rank> ranks_;
  std::vector<RankPlan> plans_;
  SchedulerCounts counts_;
};

}  // namespace ziggurat::infer
