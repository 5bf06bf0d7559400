#include "train/run_state.h"

namespace ziggurat::train {

// What most runs have none of is not told, so that their checkpoints stay as they were.
nlohmann::json state_of(const Training& training) {
  const Cursor& cursor = training.cursor;
  nlohmann::json state = {{"step", cursor.step}, {"consumed_samples", cursor.samples}};
  if (cursor.left_out > 0) state["updates_left_out"] = cursor.left_out;
  for (const IndexRange& range : cursor.skipped) {
    state["skipped_samples"].push_back({range.begin, range.end});
  }
  const StepHistory& history = training.history;
  if (!history.losses.empty()) {
    state["history"] = {{"losses", history.losses}, {"grad_norms", history.grad_norms}};
  }
  return state;
}

void restore_state(const nlohmann::json& state, Training& training) {
  Cursor& cursor = training.cursor;
  cursor.step = state.at("step").get<int64_t>();
  cursor.samples = state.at("consumed_samples").get<int64_t>();
  cursor.left_out = state.value("updates_left_out", int64_t{0});
  cursor.skipped.clear();
  for (const nlohmann::json& range : state.value("skipped_samples", nlohmann::json::array())) {
    cursor.skipped.push_back({range.at(0).get<int64_t>(), range.at(1).get<int64_t>()});
  }
  training.history = {};
  if (!state.contains("history")) return;
  state.at("history").at("losses").get_to(training.history.losses);
  state.at("history").at("grad_norms").get_to(training.history.grad_norms);
}

}  // namespace ziggurat::train
