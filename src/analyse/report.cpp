#include <algorithm>
#include <cmath>

#include <ziggurat/analyse/report.h>

namespace ziggurat::analyse {

namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBins = 16;       // of positions
constexpr int64_t kOwnTokens = 10;  // listed of an expert

Json own_tokens_of(const RoutingReport& report, const RoutedTokens& routed, const RoutedLayer& layer) {
  Json out = Json::array();
  for (const std::vector<OwnToken>& expert : own_tokens(routed, layer, report.least, kOwnTokens)) {
    Json tokens = Json::array();
    for (const OwnToken& t : expert) {
      Json one = {{"token", t.token}, {"share", t.share}, {"count", t.count}};
      if (report.text_of) one["text"] = report.text_of(t.token);
      tokens.push_back(one);
    }
    out.push_back(tokens);
  }
  return out;
}

Json over_time(const RoutingReport& report, size_t layer, const RoutedLayer& last) {
  Json out = Json::array();
  for (const Snapshot& at : report.snapshots) {
    const RoutedLayer& then = at.routed.layers[layer];
    const Saturation same = saturation(then, last);
    out.push_back({{"step", at.step},
                   {"saturation", same.top_k},
                   {"saturation_top_1", same.top_1},
                   {"token_distance", distance_of_tokens(at.routed, then, last, report.least)}});
  }
  return out;
}

}  // namespace

Json to_json(const RoutingReport& report) {
  const RoutedTokens& routed = report.snapshots.back().routed;
  Json out = {{"model", report.model},
              {"tokens", routed.tokens()},
              {"sequence_length", report.length},
              {"least_occurrences", report.least},
              {"sources", report.sources}};
  out["checkpoints"] = Json::array();
  for (const Snapshot& s : report.snapshots)
    out["checkpoints"].push_back({{"step", s.step}, {"path", s.checkpoint}});
  out["layers"] = Json::array();
  for (size_t i = 0; i < routed.layers.size(); ++i) {
    const RoutedLayer& layer = routed.layers[i];
    const Deviation by_token = deviation_over_experts(layer, routed.token, report.least);
    const Deviation by_position = deviation_over_experts(layer, routed.position, report.least);
    Json one = {{"layer", layer.layer}, {"experts", layer.experts}, {"top_k", layer.top_k}};
    one["load"] = loads(layer);
    one["load_by_source"] = loads_by_source(routed, layer, static_cast<int64_t>(report.sources.size()));
    one["drop_rate"] = drop_rate(layer);
    one["drop_by_position"] = drop_by_position(routed, layer, report.length, std::min(kBins, report.length));
    one["token_deviation"] = by_token.deviation;
    one["position_deviation"] = by_position.deviation;
    one["token_kinds"] = by_token.kinds;
    one["specialisation"] = {{"input", specialisation(layer, routed.token, report.least)},
                             {"next", specialisation(layer, routed.next, report.least)},
                             {"predicted", specialisation(layer, routed.predicted, report.least)}};
    one["coactivation"] = coactivation(layer);
    one["own_tokens"] = own_tokens_of(report, routed, layer);
    one["checkpoints"] = over_time(report, i, layer);
    out["layers"].push_back(one);
  }
  return out;
}

std::string number_text(const Json& value, int digits, const char* none) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  return std::isfinite(number) ? fmt::format("{:.{}f}", number, digits) : none;
}

std::string tables(const Json& f) {
  bool none = false;  // of a mean: there was nothing to take it over
  const auto text = [&](const Json& value, int digits) {
    const std::string shown = number_text(value, digits, "none");
    none = none || shown == "none";
    return shown;
  };
  std::string out = fmt::format("{}: {} tokens, step {}\n\n", f["model"].get<std::string>(),
                                f["tokens"].get<int64_t>(), f["checkpoints"].back()["step"].get<int64_t>());
  out += fmt::format("{:>6} {:>9} {:>9} {:>9} {:>15} {:>25} {:>19}\n", "", "experts", "largest", "dropped",
                     "dropped at", "specialisation by", "deviation by");
  out +=
      fmt::format("{:>6} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9}\n", "layer", "/ top-k",
                  "load", "%", "start", "end %", "input", "next", "predicted", "token", "position");
  for (const Json& layer : f["layers"]) {
    const auto load = layer["load"].get<std::vector<double>>();
    const auto drops = layer["drop_by_position"].get<std::vector<double>>();
    const Json& s = layer["specialisation"];
    out += fmt::format("{:>6} {:>9} {:>9.2f} {:>9.2f} {:>7.2f} {:>7.2f} {:>7} {:>7} {:>9} {:>9} {:>9}\n",
                       layer["layer"].get<int64_t>(),
                       fmt::format("{}/{}", layer["experts"].get<int64_t>(), layer["top_k"].get<int64_t>()),
                       *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()),
                       100 * layer["drop_rate"].get<double>(), 100 * drops.front(), 100 * drops.back(),
                       text(s["input"], 3), text(s["next"], 3), text(s["predicted"], 3),
                       text(layer["token_deviation"], 4), text(layer["position_deviation"], 4));
  }
  const auto with_note = [&] {
    if (!none) return out;
    return out + fmt::format("\nnone: no id, or position, was there {} times (--least)\n",
                             f["least_occurrences"].get<int64_t>());
  };
  if (f["checkpoints"].size() < 2) return with_note();
  out += fmt::format("\n{:>6} {:>9} {:>11} {:>7} {:>17}\n", "layer", "step", "saturation", "top-1",
                     "token distance");
  for (const Json& layer : f["layers"]) {
    for (const Json& at : layer["checkpoints"]) {
      out += fmt::format("{:>6} {:>9} {:>11.3f} {:>7.3f} {:>17}\n", layer["layer"].get<int64_t>(),
                         at["step"].get<int64_t>(), at["saturation"].get<double>(),
                         at["saturation_top_1"].get<double>(), text(at["token_distance"], 3));
    }
  }
  return with_note();
}

}  // namespace ziggurat::analyse
