#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "report/page_text.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/report/page.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::report {

namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPoints = 1200;  // of a curve: more than a screen has columns

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// Every curve in at most kPoints points: means of as many steps each, and where asked the least and largest.
Json curves_of(const std::vector<StepPoint>& steps) {
  struct Curve {
    const char* name;
    double StepPoint::*value;
    bool band;
  };
  constexpr Curve kCurves[] = {{"loss", &StepPoint::loss, true},
                               {"lr", &StepPoint::lr, false},
                               {"grad_norm", &StepPoint::grad_norm, true},
                               {"tokens_per_second", &StepPoint::tokens_per_second, false},
                               {"roof", &StepPoint::roof, false},
                               {"memory", &StepPoint::memory, false},
                               {"imbalance", &StepPoint::imbalance, false},
                               {"drop", &StepPoint::drop, false}};
  Json out;
  for (const char* name : {"step", "tokens", "flops", "seconds"}) out[name] = Json::array();
  for (const Curve& curve : kCurves) {
    out[curve.name] = Json::array();
    if (curve.band)
      out[std::string(curve.name) + "_low"] = out[std::string(curve.name) + "_high"] = Json::array();
  }
  std::set<std::string> parts;
  for (const StepPoint& point : steps) {
    for (const auto& [name, value] : point.parts) parts.insert(name);
  }
  parts.erase("cross_entropy");  // that is the loss
  out["parts"] = Json::object();
  const size_t width = std::max<size_t>(1, (steps.size() + kPoints - 1) / kPoints);
  for (size_t begin = 0; begin < steps.size(); begin += width) {
    const size_t end = std::min(begin + width, steps.size());
    const StepPoint& last = steps[end - 1];
    out["step"].push_back(last.step), out["tokens"].push_back(last.tokens);
    out["flops"].push_back(last.flops), out["seconds"].push_back(last.seconds);
    for (const std::string& name : parts) {
      double sum = 0;
      for (size_t i = begin; i < end; ++i) {
        const auto found = steps[i].parts.find(name);
        sum += found == steps[i].parts.end() ? NAN : found->second;
      }
      out["parts"][name].push_back(finite(sum / static_cast<double>(end - begin)));
    }
    for (const Curve& curve : kCurves) {
      double sum = 0, low = INFINITY, high = -INFINITY;
      for (size_t i = begin; i < end; ++i) {
        const double value = steps[i].*curve.value;
        sum += value, low = std::min(low, value), high = std::max(high, value);
      }
      out[curve.name].push_back(finite(sum / static_cast<double>(end - begin)));
      if (!curve.band) continue;
      out[std::string(curve.name) + "_low"].push_back(finite(low));
      out[std::string(curve.name) + "_high"].push_back(finite(high));
    }
  }
  return out;
}

// A load as a letter: 32 is the mean, 8 letters a factor of two, 0 no token at all.
char load_letter(double times_mean) {
  constexpr const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
  if (times_mean <= 0) return kAlphabet[0];
  return kAlphabet[std::lround(std::clamp(32 + 8 * std::log2(times_mean), 1.0, 63.0))];
}

Json layers_of(const std::vector<LayerHistory>& layers) {
  Json out = Json::array();
  for (const LayerHistory& layer : layers) {
    Json one = {
        {"layer", layer.layer}, {"experts", layer.experts}, {"step", Json::array()}, {"load", Json::array()}};
    one["imbalance"] = one["drop"] = one["entropy"] = Json::array();
    for (const LayerColumn& column : layer.columns) {
      double all = 0;
      for (const double tokens : column.tokens) all += tokens;
      std::string letters;
      for (size_t i = 0; i < static_cast<size_t>(layer.experts); ++i) {
        const double tokens = i < column.tokens.size() ? column.tokens[i] : 0;
        letters += load_letter(all > 0 ? tokens * static_cast<double>(layer.experts) / all : 0);
      }
      const auto steps = static_cast<double>(column.steps);
      one["step"].push_back(column.last_step), one["load"].push_back(letters);
      one["imbalance"].push_back(finite(column.imbalance / steps));
      one["drop"].push_back(finite(column.drop / steps));
      one["entropy"].push_back(finite(column.entropy / steps));
    }
    out.push_back(std::move(one));
  }
  return out;
}

// Points of several names (splits, tasks) as a curve for each.
template <class Point>
Json by_name(const std::vector<Point>& points, const char* name_key, std::string Point::*name,
             const std::vector<std::pair<const char*, double Point::*>>& values) {
  Json out = Json::array();
  std::map<std::string, size_t> place;
  for (const Point& point : points) {
    const auto [found, is_new] = place.try_emplace(point.*name, out.size());
    if (is_new) {
      out.push_back({{name_key, point.*name}, {"step", Json::array()}});
      for (const auto& [key, value] : values) out.back()[key] = Json::array();
    }
    Json& curve = out[found->second];
    curve["step"].push_back(point.step);
    for (const auto& [key, value] : values) curve[key].push_back(finite(point.*value));
  }
  return out;
}

std::optional<train::RunConfig> config_of(const RunHistory& run) {
  train::RunConfig config;
  if (run.config.empty()) return {};
  try {
    parse_config(config, run.config, run.folder + "/config.yaml");
    return config;
  } catch (const Error&) {
    return {};
  }
}

// Keys in the order of the field lists, one value for each run: of several runs those that are not the same
// in all, of one those that are not the defaults.
Json differences(const std::vector<std::optional<train::RunConfig>>& configs) {
  std::vector<std::string> keys;
  std::map<std::string, std::vector<std::string>> values;
  const auto note = [&](const train::RunConfig& config, size_t i) {
    for_each_value(config, [&](const std::string& key, const Field& field) {
      std::vector<std::string>& all = values[key];
      if (all.empty()) keys.push_back(key);
      all.resize(configs.size() + 1);
      all[i] = value_text(field);
    });
  };
  note(train::RunConfig(), configs.size());
  for (size_t i = 0; i < configs.size(); ++i) {
    if (configs[i]) note(*configs[i], i);
  }
  Json out = Json::array();
  for (const std::string& key : keys) {
    std::vector<std::string> row = values[key];
    const std::string fallback = row.back();
    row.pop_back();
    std::string first;
    bool differs = false;
    for (size_t i = 0; i < row.size(); ++i) {
      if (!configs[i]) continue;
      if (first.empty()) first = configs.size() == 1 ? fallback : row[i];
      differs = differs || row[i] != first;
    }
    if (differs) out.push_back({{"key", key}, {"values", row}});
  }
  return out;
}

Json notes_of(const RunHistory& run, bool has_config) {
  Json notes = Json::array();
  if (run.unreadable > 0)
    notes.push_back(fmt::format("{} lines of metrics.jsonl are no records", run.unreadable));
  if (!has_config)
    notes.push_back("config.yaml is missing or of another version, so its keys are not compared");
  if (!run.ended) notes.push_back("the run has not come to its end");
  return notes;
}

}  // namespace

Json page_data(std::span<const RunHistory> runs) {
  std::vector<std::optional<train::RunConfig>> configs;
  Json out = {{"runs", Json::array()}};
  for (const RunHistory& run : runs) {
    configs.push_back(config_of(run));
    Json samples = Json::array();
    for (const SampleText& s : run.samples)
      samples.push_back({{"step", s.step}, {"prompt", s.prompt}, {"text", s.text}});
    out["runs"].push_back(
        {{"name", run.name},
         {"folder", run.folder},
         {"total_steps", run.total_steps},
         {"starts", run.starts},
         {"steps", curves_of(run.steps)},
         {"validation", by_name<ValidationPoint>(
                            run.validations, "split", &ValidationPoint::split,
                            {{"loss", &ValidationPoint::loss}, {"accuracy", &ValidationPoint::accuracy}})},
         {"tasks", by_name<TaskPoint>(run.tasks, "name", &TaskPoint::name, {{"value", &TaskPoint::value}})},
         {"layers", layers_of(run.layers)},
         {"samples", samples},
         {"notes", notes_of(run, configs.back().has_value())}});
  }
  out["diff_title"] = runs.size() == 1 ? "Config: what is not the default" : "Config: what differs";
  out["diff"] = differences(configs);
  return out;
}

std::string html_page(std::span<const RunHistory> runs) {
  constexpr std::string_view kMarker = "REPORT_DATA";
  std::string page = kPage;
  std::string data = page_data(runs).dump(-1, ' ', false, Json::error_handler_t::replace);
  // Inside <script> a browser looks for its end before anything else.
  for (size_t at = 0; (at = data.find('<', at)) != data.npos;) data.replace(at, 1, "\\u003c");
  return page.replace(page.find(kMarker), kMarker.size(), data);
}

}  // namespace ziggurat::report
