#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <ziggurat/core/error.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/report/history.h>

namespace ziggurat::report {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// A record that another program or a full disk left half is no reason to see nothing.
double number(const Json& record, const char* key) {
  const auto value = record.find(key);
  return value != record.end() && value->is_number() ? value->get<double>() : 0;
}
int64_t whole(const Json& record, const char* key) { return static_cast<int64_t>(number(record, key)); }
std::string text(const Json& record, const char* key) {
  const auto value = record.find(key);
  return value != record.end() && value->is_string() ? value->get<std::string>() : "";
}

template <class Points>
void forget_after(Points& points, int64_t step) {
  std::erase_if(points, [&](const auto& point) { return point.step > step; });
}

void add_to(LayerColumn& to, const LayerColumn& from) {
  if (to.tokens.size() < from.tokens.size()) to.tokens.resize(from.tokens.size());
  for (size_t i = 0; i < from.tokens.size(); ++i) to.tokens[i] += from.tokens[i];
  to.last_step = std::max(to.last_step, from.last_step);
  to.steps += from.steps;
  to.imbalance += from.imbalance, to.drop += from.drop, to.entropy += from.entropy;
}

// Columns twice as wide, half as many.
void widen(LayerHistory& layer) {
  std::vector<LayerColumn> wide((layer.columns.size() + 1) / 2);
  for (size_t i = 0; i < layer.columns.size(); ++i) add_to(wide[i / 2], layer.columns[i]);
  layer.columns = std::move(wide);
  layer.width *= 2;
}

LayerHistory& layer_of(std::vector<LayerHistory>& layers, int64_t number) {
  for (LayerHistory& layer : layers) {
    if (layer.layer == number) return layer;
  }
  layers.emplace_back().layer = number;
  return layers.back();
}

void add_layer(std::vector<LayerHistory>& layers, const Json& record, int64_t step) {
  LayerHistory& layer = layer_of(layers, whole(record, "layer"));
  LayerColumn column{.last_step = step,
                     .steps = 1,
                     .tokens = {},
                     .imbalance = number(record, "imbalance"),
                     .drop = number(record, "drop_rate"),
                     .entropy = number(record, "entropy")};
  const auto tokens = record.find("tokens_per_expert");
  if (tokens != record.end() && tokens->is_array()) {
    for (const Json& n : *tokens) column.tokens.push_back(n.is_number() ? n.get<double>() : 0);
  }
  layer.experts = std::max(layer.experts, static_cast<int64_t>(column.tokens.size()));
  // A step that is done again is added to the column that knows it: too little to see.
  if (layer.columns.empty() || layer.columns.back().steps >= layer.width) {
    if (layer.columns.size() == kColumns) widen(layer);
    layer.columns.emplace_back();
  }
  add_to(layer.columns.back(), column);
}

}  // namespace

void RunHistory::add(const Json& record) {
  const std::string kind = text(record, "kind");
  const int64_t step = whole(record, "step");
  if (kind == "start") {
    starts.push_back(text(record, "time"));
    ended = false;
    forget_after(steps, step), forget_after(validations, step), forget_after(tasks, step),
        forget_after(samples, step);
  } else if (kind == "step") {
    while (!steps.empty() && steps.back().step >= step) steps.pop_back();
    StepPoint point;
    if (!steps.empty()) point = steps.back();
    const double seconds = number(record, "step_seconds");
    point.step = step;
    point.tokens = whole(record, "tokens");
    point.seconds += seconds;
    point.flops += number(record, "flops_per_second") * seconds;
    point.loss = number(record, "loss"), point.lr = number(record, "lr");
    point.grad_norm = number(record, "grad_norm");
    point.tokens_per_second = number(record, "tokens_per_second");
    point.roof = number(record, "roof_fraction"), point.memory = number(record, "memory_bytes");
    point.eta = number(record, "eta_seconds");
    point.parts.clear();
    for (const char* group : {"losses", "objective"}) {
      const auto values = record.find(group);
      if (values == record.end() || !values->is_object()) continue;
      for (const auto& [part, value] : values->items()) point.parts[part] = number(*values, part.c_str());
    }
    point.imbalance = point.drop = 0;
    total_steps = whole(record, "total_steps");
    if (const auto moe = record.find("moe"); moe != record.end() && moe->is_array()) {
      for (const Json& layer : *moe) {
        point.imbalance = std::max(point.imbalance, number(layer, "imbalance"));
        point.drop += number(layer, "drop_rate") / static_cast<double>(moe->size());
        add_layer(layers, layer, step);
      }
    }
    steps.push_back(point);
  } else if (kind == "validation") {
    validations.push_back({text(record, "split"), step, number(record, "loss"), number(record, "accuracy")});
  } else if (kind == "tasks") {
    const auto scores = record.find("scores");
    if (scores == record.end() || !scores->is_object()) return;
    for (const auto& [task, value] : scores->items())
      tasks.push_back({task, step, value.is_number() ? value.get<double>() : 0});
  } else if (kind == "sample") {
    samples.push_back({step, text(record, "prompt"), text(record, "text")});
  } else if (kind == "end") {
    ended = true;
  }
}

HistoryReader::HistoryReader(const std::string& path) {
  const fs::path given = path, file = fs::is_directory(given) ? given / "metrics.jsonl" : given;
  check(std::ifstream(file).is_open(), ErrorKind::data,
        "{}: expected the folder of a run, with its metrics.jsonl, which cannot be opened; name the config's "
        "output (run/<name>)",
        path);
  file_ = file.string();
  history_.folder = fs::weakly_canonical(file).parent_path().string();
  history_.name = fs::path(history_.folder).filename().string();
  std::ifstream config(fs::path(history_.folder) / "config.yaml");
  history_.config.assign(std::istreambuf_iterator<char>(config), {});
}

bool HistoryReader::read_more() {
  std::ifstream stream(file_);
  stream.seekg(0, std::ios::end);
  const std::streamoff size = stream.tellg(), before = read_;
  if (size < read_) {  // another run began here
    history_ = HistoryReader(file_).take();
    read_ = 0;
  }
  stream.seekg(read_);
  Progress progress("read " + history_.name, "", size);
  for (std::string line; std::getline(stream, line) && !stream.eof();) {  // eof: its end is not written yet
    read_ += static_cast<std::streamoff>(line.size()) + 1;
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (record.is_object()) {
      history_.add(record);
    } else {
      ++history_.unreadable;
    }
    progress.update(read_);
  }
  return read_ != before;
}

RunHistory read_history(const std::string& path) {
  HistoryReader reader(path);
  reader.read_more();
  return reader.take();
}

}  // namespace ziggurat::report
