// ziggurat top RUN: a run as it goes on, on one screen.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "apps/commands.h"
#include <ziggurat/core/amounts.h>
#include <ziggurat/core/terminal.h>
#include <ziggurat/report/history.h>

namespace ziggurat::apps {

namespace {

constexpr size_t kWidth = 60;

// Means of as many values each, as blocks of eight heights.
std::string sparkline(const std::vector<double>& values) {
  constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const size_t n = std::min(kWidth, values.size());
  std::vector<double> means;
  for (size_t i = 0; i < n; ++i) {
    const size_t begin = i * values.size() / n, end = (i + 1) * values.size() / n;
    double sum = 0;
    for (size_t j = begin; j < end; ++j) sum += values[j];
    means.push_back(sum / static_cast<double>(end - begin));
  }
  if (means.empty()) return "";
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  std::string line;
  for (const double mean : means) {
    const double share = *high > *low ? (mean - *low) / (*high - *low) : 0;
    line += kBlocks[static_cast<size_t>(std::clamp(share * 7 + 0.5, 0.0, 7.0))];
  }
  return line;
}

std::string bar(double share) {
  const auto full = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * kWidth);
  std::string line;
  for (size_t i = 0; i < kWidth; ++i) line += i < full ? "█" : "░";
  return line;
}

std::string screen(const report::RunHistory& run) {
  std::string text = fmt::format("{}  {}\n", run.name, run.ended ? "at its end" : run.folder);
  if (run.steps.empty()) return text + "no step yet\n";
  const report::StepPoint& now = run.steps.back();
  std::vector<double> losses, speeds;
  for (const report::StepPoint& step : run.steps) {
    losses.push_back(step.loss);
    speeds.push_back(step.tokens_per_second);
  }
  const auto row = [&](const char* what, const std::string& drawn, const std::string& figure) {
    text += fmt::format("{:<11} {}  {}\n", what, drawn, figure);
  };
  row("step", bar(static_cast<double>(now.step) / static_cast<double>(std::max(now.step, run.total_steps))),
      fmt::format("{}/{}, {} tokens, {}", now.step, run.total_steps,
                  format_count(static_cast<double>(now.tokens)),
                  run.ended ? "done" : "ETA " + format_duration(now.eta)));
  row("loss", sparkline(losses), fmt::format("{:.4f}", now.loss));
  std::vector<double> valid;
  for (const report::ValidationPoint& v : run.validations) {
    if (v.split == "valid") valid.push_back(v.loss);
  }
  if (!valid.empty()) row("validation", sparkline(valid), fmt::format("{:.4f}", valid.back()));
  row("tokens/s", sparkline(speeds),
      format_count(now.tokens_per_second) +
          (now.roof > 0 ? fmt::format(", {:.0f}% roof", 100 * now.roof) : ""));
  text += fmt::format("lr {:.2e} | gnorm {:.3f} | mem {}\n", now.lr, now.grad_norm, format_bytes(now.memory));
  for (const report::LayerHistory& layer : run.layers) {
    const report::LayerColumn& last = layer.columns.back();
    const auto dead = std::count(last.tokens.begin(), last.tokens.end(), 0.0);
    const auto steps = static_cast<double>(last.steps);
    row(fmt::format("layer {}", layer.layer).c_str(), sparkline(last.tokens),
        fmt::format("imb {:.2f} drop {:.1f}%{}", last.imbalance / steps, 100 * last.drop / steps,
                    dead == 0 ? "" : fmt::format(", {} of {} experts idle", dead, layer.experts)));
  }
  return text;
}

}  // namespace

void top(const std::string& run, double every) {
  report::HistoryReader reader(run);
  set_quiet(true);  // no progress of reading between the pictures
  const bool live = is_terminal(STDOUT_FILENO);
  while (true) {
    if (reader.read_more() || !live) {
      fmt::print("{}{}", live ? "\033[H\033[2J" : "", screen(reader.history()));
      std::fflush(stdout);
    }
    if (!live || reader.history().ended) return;
    std::this_thread::sleep_for(std::chrono::duration<double>(every));
  }
}

}  // namespace ziggurat::apps
