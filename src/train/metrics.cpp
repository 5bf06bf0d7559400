#include <algorithm>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
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

std::string progress_line(const StepRecord& r, bool exact) {
  const std::string loss =
      exact ? fmt::format("loss {:.6f} ({:a})", r.loss, r.loss) : fmt::format("loss {:.4f}", r.loss);
  std::string line = fmt::format("step {}/{} | {}/{} tok | {} | lr {:.2e} | gnorm {:.3f} | {} tok/s", r.step,
                                 r.total_steps, format_count(static_cast<double>(r.tokens)),
                                 format_count(static_cast<double>(r.total_tokens)), loss, r.lr, r.grad_norm,
                                 format_count(r.tokens_per_second));
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

JsonlWriter::JsonlWriter(const std::string& path) : file_(path, std::ios::app) {}

void JsonlWriter::write(const std::string& json) {
  if (!file_.is_open() && !warned_) return;
  file_ << json << '\n' << std::flush;
  if (!file_ && !warned_) {
    warned_ = true;
    warn("metrics.jsonl cannot be written (disk full, or the folder is gone?); training goes on without it");
  }
  file_.clear();
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace ziggurat::train
