// What rank 0 tells the other ranks of a step, and what each answers, as numbers that go from rank to rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/infer/engine.h>

namespace ziggurat::infer {

using Message = std::vector<int32_t>;

// The plans of all teams; none: the end of the last step.
void write_plans(std::span<const RankPlan> plans, Message& to);
void write_pause(Message& to);  // instead of a step: there is nothing to do yet
// Those of one team, and how long the longest answer will be.
struct PlanOfRank {
  RankPlan plan;
  int64_t longest_answer = 0;
};
enum class Told { step, pause, end };
Told read_plan(const Message& from, int team, int64_t vocabulary, PlanOfRank& to);

// Numbers that the results of a plan take.
int64_t answer_size(std::span<const RowTask> tasks, int64_t vocabulary);
int64_t longest_answer(std::span<const RankPlan> plans, int64_t vocabulary);
void write_results(std::span<const RowResult> results, std::span<const RowTask> tasks, Message& to);
void read_results(std::span<const int32_t> from, std::span<const RowTask> tasks, int64_t vocabulary,
                  std::vector<RowResult>& to);

}  // namespace ziggurat::infer
