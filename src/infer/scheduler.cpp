#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/infer/scheduler.h>

namespace ziggurat::infer {

struct Scheduler::Text {
  TextRequest request;
  std::vector<int32_t> tokens;  // with the prompt
  int64_t start = 0;            // the token at position 0

  // In the cache: positions up to `cached`, those of the first `dropped` blocks apart.
  int64_t cached = 0, dropped = 0;
  std::vector<int32_t> blocks = {};
  int64_t published = 0;  // blocks from the first on whose content is known
  BlockPool::Content content = BlockPool::kNothing;

  int64_t scored = 0;   // tokens of the prompt that were told, of those after the first
  int64_t planned = 0;  // rows of the step under way
  std::optional<EndReason> ended = {};

  // Positions that are to be cached; the last token of a text that is not to go on is not read.
  int64_t length() const { return std::ssize(tokens) - start - (request.max_new_tokens == 0 ? 1 : 0); }
  int64_t unread() const { return length() - cached; }
  int64_t drawn() const { return std::ssize(tokens) - std::ssize(request.prompt); }
  std::span<const int32_t> tokens_of(int64_t block, int64_t size) const {
    return std::span(tokens).subspan(static_cast<size_t>(start + block * size), static_cast<size_t>(size));
  }
};

struct Scheduler::Rank {
  explicit Rank(const SchedulerOptions& options) : pool(options.blocks, options.block) {}
  BlockPool pool;
  std::vector<std::unique_ptr<Text>> running;  // the oldest first
  std::vector<Text*> planned;                  // in the order of the pass's block tables
  int64_t rows_left = 0;
};

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), plans_(static_cast<size_t>(options.ranks)) {
  ziggurat::check(options.window > 0 && options.step_rows > 0 && options.texts > 0, ErrorKind::argument,
                  "[scheduler] expected a window, rows and texts of at least one, got {}, {} and {}",
                  options.window, options.step_rows, options.texts);
  const int64_t least = options.window / options.block + 2;
  ziggurat::check(
      options.blocks >= least, ErrorKind::argument,
      "[scheduler] a cache of {} blocks is too small for a text of {} tokens, which takes {}: give it more "
      "memory, or let texts be shorter",
      options.blocks, options.window, least);
  for (int r = 0; r < options.ranks; ++r) ranks_.emplace_back(options);
  // No step allocates.
  for (RankPlan& plan : plans_) {
    Pass& pass = plan.pass;
    for (auto* rows : {&pass.tokens, &pass.positions, &pass.sequence, &pass.wanted}) {
      rows->reserve(static_cast<size_t>(options.step_rows));
    }
    pass.blocks.reserve(static_cast<size_t>(std::min(options.blocks, options.texts * least)));
    plan.tasks.reserve(static_cast<size_t>(options.step_rows));
  }
}

Scheduler::~Scheduler() = default;

void Scheduler::check(const TextRequest& request) {
  ziggurat::check(!request.prompt.empty() && request.max_new_tokens >= 0, ErrorKind::argument,
                  "[scheduler] expected a prompt of at least one token and no negative number of new ones, "
                  "got {} and {}",
                  request.prompt.size(), request.max_new_tokens);
  check_sampling(request.sampling);
}

void Scheduler::submit(TextRequest request) {
  check(request);
  auto text = std::make_unique<Text>();
  text->tokens = request.prompt;
  text->start = std::max<int64_t>(0, std::ssize(request.prompt) - options_.window);
  text->request = std::move(request);
  // No steps of a text allocate.
  const int64_t most = std::min(text->request.max_new_tokens, 8 * options_.window);
  text->tokens.reserve(text->tokens.size() + static_cast<size_t>(most));
  text->blocks.reserve(static_cast<size_t>(options_.window / options_.block + 2));
  const bool nothing_to_do = text->request.max_new_tokens == 0 && !text->request.scores_prompt;
  if (nothing_to_do || text->length() <= 0) text->ended = EndReason::length;
  waiting_.push_back(std::move(text));
}

void Scheduler::cancel(int64_t id) {
  const auto cancel = [id](const auto& texts) {
    for (const auto& text : texts) {
      if (text->request.id == id && !text->ended) text->ended = EndReason::cancelled;
    }
  };
  cancel(waiting_);
  for (const Rank& rank : ranks_) cancel(rank.running);
}

bool Scheduler::idle() const {
  return waiting_.empty() &&
         std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.running.empty(); });
}

SchedulerCounts Scheduler::counts() const {
  SchedulerCounts counts = counts_;
  counts.waiting = std::ssize(waiting_);
  for (const Rank& rank : ranks_) {
    counts.running += std::ssize(rank.running);
    counts.blocks += rank.pool.blocks() - rank.pool.available();
  }
  return counts;
}

std::span<const RankPlan> Scheduler::plan(const TextEvents& events) {
  for (size_t r = 0; r < ranks_.size(); ++r) {
    Rank& rank = ranks_[r];
    end_finished(rank, events);
    plans_[r].pass.clear();
    plans_[r].tasks.clear();
    rank.planned.clear();
    rank.rows_left = options_.step_rows;
    for (const auto& text : rank.running) text->planned = 0;
  }
  end_cancelled(events);
  admit();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    Rank& rank = ranks_[r];
    // Those that are being written come first, so that no prompt makes them wait.
    for (const bool written : {true, false}) {
      for (size_t i = 0; i < rank.running.size(); ++i) {  // which may lose its last ones
        Text& text = *rank.running[i];
        if (text.planned == 0 && (text.unread() == 1) == written) read(rank, plans_[r], text);
      }
    }
  }
  return plans_;
}

// Texts in the queue that are to be written no more, or not at all.
void Scheduler::end_cancelled(const TextEvents& events) {
  for (auto text = waiting_.begin(); text != waiting_.end();) {
    if (!(*text)->ended) {
      ++text;
      continue;
    }
    const std::unique_ptr<Text> ended = std::move(*text);
    text = waiting_.erase(text);
    if (events.end) events.end(ended->request.id, *ended->ended);
  }
}

void Scheduler::end_finished(Rank& rank, const TextEvents& events) {
  for (const auto& text : rank.running) {
    if (!text->ended) continue;
    release(rank.pool, *text);
    if (events.end) events.end(text->request.id, *text->ended);
  }
  std::erase_if(rank.running, [](const auto& text) { return text->ended.has_value(); });
}

// One that waits for its own beginning to be read holds up nobody; one that finds no room all others.
void Scheduler::admit() {
  for (auto text = waiting_.begin(); text != waiting_.end();) {
    const bool waits = std::any_of(ranks_.begin(), ranks_.end(),
                                   [&](const Rank& rank) { return is_being_read(rank, **text); });
    if (waits) {
      ++text;
    } else if (admit(*text)) {
      text = waiting_.erase(text);
    } else {
      return;
    }
  }
}

// To the rank with the fewest texts that has room for it. False where there is none.
bool Scheduler::admit(std::unique_ptr<Text>& text) {
  Rank* best = nullptr;
  for (Rank& rank : ranks_) {
    const int64_t wanted = std::min(text->length(), options_.window) / options_.block + 1;
    if (std::ssize(rank.running) >= options_.texts || rank.pool.available() < wanted) continue;
    if (best == nullptr || rank.running.size() < best->running.size()) best = &rank;
  }
  if (best == nullptr) return false;
  counts_.shared_tokens += take_known_blocks(best->pool, *text);
  best->running.push_back(std::move(text));
  return true;
}

// The blocks that hold the text's beginning; at least one token is left to read. -> tokens
int64_t Scheduler::take_known_blocks(BlockPool& pool, Text& text) const {
  if (text.request.scores_prompt || !text.request.shares_prefix) return 0;
  while ((text.published + 1) * options_.block < text.length()) {
    const auto found = pool.find(text.content, text.tokens_of(text.published, options_.block));
    if (!found) break;
    pool.hold(found->block);
    text.blocks.push_back(found->block);
    text.content = found->content;
    ++text.published;
  }
  text.cached = text.published * options_.block;
  return text.cached;
}

// Whether a running text is about to read what the text begins with, which can then be shared.
bool Scheduler::is_being_read(const Rank& rank, const Text& text) const {
  const int64_t block = options_.block;
  if (text.length() <= block || text.request.scores_prompt || !text.request.shares_prefix) return false;
  return std::any_of(rank.running.begin(), rank.running.end(), [&](const auto& other) {
    // As far as both go on alike and that one reads it still.
    if (other->ended || !other->request.shares_prefix || other->unread() <= 1) return false;
    const int64_t most = std::min(text.length() - 1, other->length()) / block * block;
    const auto begin = text.tokens.begin() + text.start, theirs = other->tokens.begin() + other->start;
    const int64_t alike = std::mismatch(begin, begin + most, theirs).first - begin;
    return alike / block * block > other->cached;
  });
}

// As many rows of the text as there is room for.
void Scheduler::read(Rank& rank, RankPlan& plan, Text& text) {
  const int64_t rows = make_room(rank, text, std::min(text.unread(), rank.rows_left));
  if (rows == 0) return;
  text.planned = rows;
  rank.rows_left -= rows;
  rank.planned.push_back(&text);
  plan.pass.add_sequence(text.blocks, text.dropped);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t position = text.cached + i, token = text.start + position;
    const bool last = token + 1 == std::ssize(text.tokens),
               scored = !last && text.request.scores_prompt && token >= text.scored &&
                        token + 1 < std::ssize(text.request.prompt);
    plan.pass.add_row(text.tokens[static_cast<size_t>(token)], position, last || scored);
    if (!last && !scored) continue;
    RowTask task{.alternatives = text.request.alternatives};
    if (scored) {
      task.scored = text.tokens[static_cast<size_t>(token) + 1];
    } else {
      task.sampling = text.request.sampling;
      task.position = std::ssize(text.tokens), task.text = text.request.text;
      if (task.sampling.repetition_penalty != 1) task.seen = text.tokens;
    }
    plan.tasks.push_back(std::move(task));
  }
}

// Blocks for so many more rows, or as many as there are. -> rows
int64_t Scheduler::make_room(Rank& rank, Text& text, int64_t rows) {
  const auto room = [&] { return (text.dropped + std::ssize(text.blocks)) * options_.block - text.cached; };
  while (room() < rows) {
    // All that one has may be others' too: then the next one gives up its own.
    while (rank.pool.available() == 0 && preempt_younger(rank, text)) {
    }
    if (rank.pool.available() == 0) break;
    text.blocks.push_back(rank.pool.take());
  }
  return std::min(rows, room());
}

// The youngest text that has no rows in this step gives up its blocks and waits.
bool Scheduler::preempt_younger(Rank& rank, const Text& than) {
  if (rank.running.empty() || rank.running.back().get() == &than || rank.running.back()->planned > 0) {
    return false;
  }
  std::unique_ptr<Text> text = std::move(rank.running.back());
  rank.running.pop_back();
  release(rank.pool, *text);
  ++counts_.preempted;
  waiting_.push_front(std::move(text));
  return true;
}

void Scheduler::release(BlockPool& pool, Text& text) const {
  // The end first: a beginning is of use to more texts.
  for (auto block = text.blocks.rbegin(); block != text.blocks.rend(); ++block) pool.release(*block);
  text.blocks.clear();
  text.cached = text.dropped = text.published = text.planned = 0;
  text.content = BlockPool::kNothing;
}

void Scheduler::commit(std::span<const std::vector<RowResult>> results, const TextEvents& events) {
  ++counts_.steps;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    Rank& rank = ranks_[r];
    const RankPlan& plan = plans_[r];
    ziggurat::check(results[r].size() == plan.tasks.size(), ErrorKind::internal,
                    "[scheduler] {} rows were asked of rank {}, which answered {}", plan.tasks.size(), r,
                    results[r].size());
    counts_.rows += plan.pass.rows();
    for (Text* text : rank.planned) text->cached += text->planned;
    for (size_t i = 0; i < plan.tasks.size(); ++i) {
      const auto row = static_cast<size_t>(plan.pass.wanted[i]);
      Text& text = *rank.planned[static_cast<size_t>(plan.pass.sequence[row])];
      if (!text.ended) take(text, plan.tasks[i], results[r][i], events);
    }
    for (Text* text : rank.planned) advance(rank, *text);
    rank.planned.clear();
    end_finished(rank, events);
  }
}

void Scheduler::take(Text& text, const RowTask& task, const RowResult& result, const TextEvents& events) {
  const Likelihood* likelihood = task.alternatives < 0 ? nullptr : &result.likelihood;
  if (task.scored >= 0) {
    ++text.scored;
    if (events.token) events.token(text.request.id, task.scored, true, likelihood);
  } else {
    ++counts_.tokens;
    text.tokens.push_back(result.token);
    if (events.token) events.token(text.request.id, result.token, false, likelihood);
    if (text.ended) return;
    if (result.token == text.request.stop_token) {
      text.ended = EndReason::stop;
    } else if (text.drawn() >= text.request.max_new_tokens) {
      text.ended = EndReason::length;
    }
  }
}

// After a step: full blocks can be shared, those that nobody sees any more are freed.
void Scheduler::advance(Rank& rank, Text& text) {
  text.planned = 0;
  if (text.request.max_new_tokens == 0 && text.unread() == 0 && !text.ended) text.ended = EndReason::length;
  if (text.ended) return;
  const int64_t block = options_.block;
  while ((text.published + 1) * block <= text.cached && text.request.shares_prefix) {
    const int32_t full = text.blocks[static_cast<size_t>(text.published - text.dropped)];
    text.content = rank.pool.publish(full, text.content, text.tokens_of(text.published, block));
    ++text.published;
  }
  if (options_.slides) {
    while ((text.dropped + 1) * block <= text.cached + 1 - options_.window) {
      rank.pool.release(text.blocks.front());
      text.blocks.erase(text.blocks.begin());
      ++text.dropped;
    }
  } else if (text.cached == options_.window) {
    release(rank.pool, text);
    text.start = std::ssize(text.tokens) - std::max<int64_t>(1, options_.window / 2);
  }
}

}  // namespace ziggurat::infer
