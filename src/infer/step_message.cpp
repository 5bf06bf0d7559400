#include "infer/step_message.h"

#include <algorithm>
#include <cstring>

#include <ziggurat/core/error.h>

namespace ziggurat::infer {

namespace {

class Writer {
 public:
  explicit Writer(Message& to) : to_(to) {}
  void add(int32_t value) { to_.push_back(value); }
  template <class T>
  void add_wide(T value) {  // 8 bytes
    static_assert(sizeof(T) == 8);
    int32_t halves[2];
    std::memcpy(halves, &value, sizeof(value));
    to_.insert(to_.end(), halves, halves + 2);
  }
  void add(const std::vector<int32_t>& values) {
    add(static_cast<int32_t>(values.size()));
    to_.insert(to_.end(), values.begin(), values.end());
  }

 private:
  Message& to_;
};

class Reader {
 public:
  explicit Reader(std::span<const int32_t> from) : from_(from) {}
  int32_t next() {
    check(at_ < from_.size(), ErrorKind::internal, "[engine] a message between ranks is too short");
    return from_[at_++];
  }
  template <class T>
  T next_wide() {
    const int32_t halves[2] = {next(), next()};
    T value;
    std::memcpy(&value, halves, sizeof(value));
    return value;
  }
  void next(std::vector<int32_t>& values) {
    const auto size = static_cast<size_t>(next());
    check(size <= from_.size() - at_, ErrorKind::internal, "[engine] a message between ranks is too short");
    values.assign(from_.begin() + static_cast<int64_t>(at_),
                  from_.begin() + static_cast<int64_t>(at_ + size));
    at_ += size;
  }
  void skip(size_t n) { at_ += n; }

 private:
  std::span<const int32_t> from_;
  size_t at_ = 0;
};

void write(const RankPlan& plan, Message& to) {
  Writer out(to);
  const Pass& p = plan.pass;
  for (const auto* values :
       {&p.tokens, &p.positions, &p.sequence, &p.blocks, &p.begin, &p.dropped, &p.wanted})
    out.add(*values);
  for (const RowTask& task : plan.tasks) {
    out.add(task.scored);
    out.add(static_cast<int32_t>(task.alternatives));
    if (task.scored >= 0) continue;
    out.add_wide(task.sampling.temperature);
    out.add_wide(task.sampling.top_k);
    out.add_wide(task.sampling.top_p);
    out.add_wide(task.sampling.repetition_penalty);
    out.add_wide(task.sampling.seed);
    out.add_wide(task.position);
    out.add_wide(task.text);
    out.add(task.seen);
  }
}

void read(Reader in, RankPlan& plan) {
  Pass& p = plan.pass;
  for (auto* values : {&p.tokens, &p.positions, &p.sequence, &p.blocks, &p.begin, &p.dropped, &p.wanted})
    in.next(*values);
  plan.tasks.resize(p.wanted.size());
  for (RowTask& task : plan.tasks) {
    task.scored = in.next();
    task.alternatives = in.next();
    if (task.scored >= 0) continue;
    task.sampling.temperature = in.next_wide<double>();
    task.sampling.top_k = in.next_wide<int64_t>();
    task.sampling.top_p = in.next_wide<double>();
    task.sampling.repetition_penalty = in.next_wide<double>();
    task.sampling.seed = in.next_wide<uint64_t>();
    task.position = in.next_wide<int64_t>();
    task.text = in.next_wide<int64_t>();
    in.next(task.seen);
  }
}

int64_t alternatives_of(const RowTask& task, int64_t vocabulary) {
  return std::min(task.alternatives, vocabulary);
}

constexpr int32_t kEnd = 0, kPause = -1;  // instead of a number of teams

}  // namespace

void write_pause(Message& to) { to.push_back(kPause); }

// Teams, then for each the size of its plan, and the plans.
void write_plans(std::span<const RankPlan> plans, Message& to) {
  Writer out(to);
  out.add(static_cast<int32_t>(plans.size()));
  const size_t sizes = to.size();
  for (size_t r = 0; r < plans.size(); ++r) out.add(0);
  for (size_t r = 0; r < plans.size(); ++r) {
    const size_t begin = to.size();
    write(plans[r], to);
    to[sizes + r] = static_cast<int32_t>(to.size() - begin);
  }
}

Told read_plan(const Message& from, int team, int64_t vocabulary, PlanOfRank& to) {
  Reader in(from);
  const int32_t teams = in.next();
  if (teams == kEnd) return Told::end;
  if (teams == kPause) return Told::pause;
  const auto ranks = static_cast<size_t>(teams);
  std::vector<size_t> sizes;
  for (size_t r = 0; r < ranks; ++r) sizes.push_back(static_cast<size_t>(in.next()));
  to.longest_answer = 0;
  RankPlan other;
  for (size_t r = 0; r < ranks; ++r) {
    RankPlan& plan = r == static_cast<size_t>(team) ? to.plan : other;
    read(in, plan);
    to.longest_answer = std::max(to.longest_answer, answer_size(plan.tasks, vocabulary));
    in.skip(sizes[r]);
  }
  return Told::step;
}

int64_t answer_size(std::span<const RowTask> tasks, int64_t vocabulary) {
  int64_t size = 0;
  for (const RowTask& task : tasks) {
    size += 1 + (task.alternatives < 0 ? 0 : 2 + 3 * alternatives_of(task, vocabulary));
  }
  return size;
}

int64_t longest_answer(std::span<const RankPlan> plans, int64_t vocabulary) {
  int64_t longest = 0;
  for (const RankPlan& plan : plans) longest = std::max(longest, answer_size(plan.tasks, vocabulary));
  return longest;
}

void write_results(std::span<const RowResult> results, std::span<const RowTask> tasks, Message& to) {
  Writer out(to);
  for (size_t i = 0; i < results.size(); ++i) {
    out.add(results[i].token);
    if (tasks[i].alternatives < 0) continue;
    out.add_wide(results[i].likelihood.logprob);
    for (const auto& [token, logprob] : results[i].likelihood.alternatives) {
      out.add(token);
      out.add_wide(logprob);
    }
  }
}

void read_results(std::span<const int32_t> from, std::span<const RowTask> tasks, int64_t vocabulary,
                  std::vector<RowResult>& to) {
  Reader in(from);
  to.resize(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    to[i].token = in.next();
    to[i].likelihood = {};
    if (tasks[i].alternatives < 0) continue;
    to[i].likelihood.logprob = in.next_wide<double>();
    for (int64_t n = alternatives_of(tasks[i], vocabulary); n > 0; --n) {
      const int32_t token = in.next();
      to[i].likelihood.alternatives.emplace_back(token, in.next_wide<double>());
    }
  }
}

}  // namespace ziggurat::infer
