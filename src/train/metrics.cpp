#include <algorithm>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/io/files.h>
#include <ziggurat/train/metrics.h>

namespace ziggurat::train {

double StepRecord::worst_imbalance() const {
  double worst = 0;
  for (const LayerLoad& layer : layers) worst = std::max(worst, layer.imbalance);
  return worst;
}

double StepRecord::drop_rate() const {
  double sum = 0;
  for (const LayerLoad& layer : layers) sum += layer.drop_rate / static_cast<double>(layers.size());
  return sum;
}

double StepRecord::part(const std::string& name) const {
  const auto found =
      std::find_if(losses.begin(), losses.end(), [&](const auto& of) { return of.first == name; });
  return found == losses.end() ? 0 : found->second;
}

std::string progress_line(const StepRecord& r, bool exact) {
  const std::string loss =
      exact ? fmt::format("loss {:.6f} ({:a})", r.loss, r.loss) : fmt::format("loss {:.4f}", r.loss);
  const double distillation = r.part("distillation");
  const std::string taught = distillation == 0 ? "" : fmt::format(" | teacher {:.4f}", distillation);
  std::string norms;
  for (const auto& [name, norm] : r.grad_norms)
    norms += fmt::format("{}{} {:.3f}", norms.empty() ? " (" : ", ", name, norm);
  if (!norms.empty()) norms += ')';
  std::string line = fmt::format("step {}/{} | {}/{} tok | {}{} | lr {:.2e} | gnorm {:.3f}{} | {} tok/s",
                                 r.step, r.total_steps, format_count(static_cast<double>(r.tokens)),
                                 format_count(static_cast<double>(r.total_tokens)), loss, taught, r.lr,
                                 r.grad_norm, norms, format_count(r.tokens_per_second));
  if (r.roof_fraction > 0) line += fmt::format(" | {:.0f}% roof", 100 * r.roof_fraction);
  line += fmt::format(" | mem {}", format_bytes(double(r.memory_bytes)));
  if (!r.layers.empty()) {
    line += fmt::format(" | moe imb {:.2f} drop {:.1f}%", r.worst_imbalance(), 100 * r.drop_rate());
  }
  return line + " | ETA " + format_duration(r.eta_seconds);
}

std::string to_json(const StepRecord& r) {
  nlohmann::ordered_json j = {{"kind", "step"},
                              {"step", r.step},
                              {"total_steps", r.total_steps},
                              {"tokens", r.tokens},
                              {"total_tokens", r.total_tokens},
                              {"samples", r.samples},
                              {"loss", r.loss},
                              {"loss_hex", fmt::format("{:a}", r.loss)},
                              {"auxiliary_loss", r.auxiliary_loss},
                              {"lr", r.lr},
                              {"grad_norm", r.grad_norm},
                              {"step_seconds", r.step_seconds},
                              {"data_seconds", r.data_seconds},
                              {"tokens_per_second", r.tokens_per_second},
                              {"flops_per_second", r.flops_per_second},
                              {"roof_fraction", r.roof_fraction},
                              {"memory_bytes", r.memory_bytes},
                              {"eta_seconds", r.eta_seconds}};
  for (const auto& [name, norm] : r.grad_norms) j["grad_norms"][name] = norm;
  for (const auto& [name, loss] : r.losses) j["losses"][name] = loss;
  for (const auto& [name, value] : r.settings) j["objective"][name] = value;
  if (!r.left_out.empty()) j["left_out"] = r.left_out;
  if (r.updates_left_out > 0) j["updates_left_out"] = r.updates_left_out;
  if (r.launches > 0) j["launches"] = r.launches, j["graphs"] = r.graphs, j["waits"] = r.waits;
  for (const LayerLoad& layer : r.layers) {
    j["moe"].push_back({{"layer", layer.layer},
                        {"imbalance", layer.imbalance},
                        {"drop_rate", layer.drop_rate},
                        {"entropy", layer.entropy},
                        {"balance_loss", layer.balance_loss},
                        {"z_loss", layer.z_loss},
                        {"tokens_per_expert", layer.tokens_per_expert}});
  }
  return j.dump();
}

namespace {

// step, or -1: the line is no record of a step.
struct Line {
  std::string text, kind;
  int64_t step = -1;
  bool whole = false;
};

std::vector<Line> read_lines(const std::string& path) {
  std::vector<Line> lines;
  std::ifstream file(path);
  for (Line line; std::getline(file, line.text); line = {}) {
    const auto json = nlohmann::json::parse(line.text, nullptr, false);
    line.whole = json.is_object() && !file.eof();  // eof: without its line break
    if (line.whole) {
      if (const auto kind = json.find("kind"); kind != json.end() && kind->is_string()) line.kind = *kind;
      if (const auto step = json.find("step"); step != json.end() && step->is_number_integer())
        line.step = *step;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

void cut_metrics(const std::string& path, int64_t step) {
  const std::vector<Line> lines = read_lines(path);
  std::map<int64_t, size_t> last;  // the line that tells of a step
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].kind == "step") last[lines[i].step] = i;
  }
  std::string kept;
  size_t dropped = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    const Line& line = lines[i];
    const bool keeps = line.whole && line.step <= step && (line.kind != "step" || last[line.step] == i);
    if (keeps) kept += line.text + '\n';
    dropped += keeps ? 0 : 1;
  }
  if (dropped == 0) return;
  replace_file(path, kept, ErrorKind::config);
  info("{}: dropped {} lines: of steps after {}, told twice, or cut off", path, dropped, step);
}

bool says_ended(const std::string& path, int64_t step) {
  for (const Line& line : read_lines(path)) {
    if (line.kind == "end" && line.step == step) return true;
  }
  return false;
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace ziggurat::train
