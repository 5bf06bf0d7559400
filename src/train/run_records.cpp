#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include <ziggurat/io/event_file.h>
#include <ziggurat/train/run_records.h>

namespace ziggurat::train {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

struct Curve {
  const char* key;  // of a record
  const char* tag;  // in TensorBoard: what stands before the slash is a group of curves
};
constexpr Curve kStepCurves[] = {{"loss", "train/loss"},
                                 {"auxiliary_loss", "train/auxiliary_loss"},
                                 {"lr", "train/lr"},
                                 {"grad_norm", "train/grad_norm"},
                                 {"tokens", "progress/tokens"},
                                 {"tokens_per_second", "speed/tokens_per_second"},
                                 {"flops_per_second", "speed/flops_per_second"},
                                 {"roof_fraction", "speed/share_of_roof"},
                                 {"step_seconds", "speed/step_seconds"},
                                 {"data_seconds", "speed/data_seconds"},
                                 {"memory_bytes", "memory/bytes"}};
constexpr const char* kLayerCurves[] = {"imbalance", "drop_rate", "entropy", "balance_loss", "z_loss"};

void add(std::vector<NamedScalar>& scalars, std::string tag, const nlohmann::json& record, const char* key) {
  const auto value = record.find(key);
  if (value != record.end() && value->is_number()) scalars.emplace_back(std::move(tag), value->get<double>());
}

std::vector<NamedScalar> scalars_of(const nlohmann::json& record, const std::string& kind) {
  std::vector<NamedScalar> scalars;
  if (kind == "step") {
    for (const Curve& curve : kStepCurves) add(scalars, curve.tag, record, curve.key);
    for (const char* group : {"losses", "objective", "grad_norms"}) {
      const auto values = record.find(group);
      if (values == record.end()) continue;
      for (const auto& [name, value] : values->items())
        add(scalars, fmt::format("{}/{}", group, name), *values, name.c_str());
    }
    if (const auto layers = record.find("moe"); layers != record.end()) {
      for (const nlohmann::json& layer : *layers) {
        const auto number = layer.value("layer", int64_t{0});
        for (const char* key : kLayerCurves)
          add(scalars, fmt::format("moe_{}/layer_{:02}", key, number), layer, key);
      }
    }
  } else if (kind == "validation") {
    const std::string split = record.value("split", "valid");
    for (const char* key : {"loss", "accuracy"}) add(scalars, fmt::format("{}/{}", split, key), record, key);
  } else if (kind == "tasks") {
    const auto scores = record.find("scores");
    if (scores == record.end()) return scalars;
    for (const auto& [name, value] : scores->items())
      scalars.emplace_back("tasks/" + name, value.is_number() ? value.get<double>() : 0);
  }
  return scalars;
}

}  // namespace

RunRecords::RunRecords(const std::string& folder, int64_t step)
    : metrics_(folder + "/metrics.jsonl"), events_(new_event_file(folder, now())) {
  events_.append(event_file_head(now()) + event_of_start(now(), step));
}

void RunRecords::write(const std::string& json) {
  metrics_.append(json + '\n');
  const auto record = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (record.is_object()) events_.append(event_of(record, now()));
}

void RunRecords::sync() {
  metrics_.sync();
  events_.sync();
}

// TensorBoard takes the files of a folder in the order of their names.
std::string new_event_file(const std::string& folder, double time) {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  for (auto seconds = static_cast<int64_t>(time);; ++seconds) {
    std::string path = fmt::format("{}/events.out.tfevents.{:010}.{}", folder, seconds, host);
    if (!std::filesystem::exists(path)) return path;
  }
}

std::string event_of(const nlohmann::json& record, double time) {
  const std::string kind = record.value("kind", "");
  const auto step = record.value("step", int64_t{0});
  if (kind == "sample") {
    const std::vector<NamedText> texts = {{fmt::format("samples/{}", record.value("prompt_number", 1)),
                                           record.value("prompt", "") + record.value("text", "")}};
    return event_of_texts(time, step, texts);
  }
  const std::vector<NamedScalar> scalars = scalars_of(record, kind);
  return scalars.empty() ? "" : event_of_scalars(time, step, scalars);
}

}  // namespace ziggurat::train
