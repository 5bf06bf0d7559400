#include "watch/rank_view.h"

#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace ziggurat::watch {

void fill(RankView& view, const FlightLog& log) {
  view.readable = true;
  view.said_goodbye = log.said_goodbye();
  view.phase = log.phase();
  view.step = log.step();
  view.waits = log.waits();
  view.collective = log.latest_collective();
  view.words = log.last_words();
}

std::string to_json(const RankView& view, int64_t beats, int64_t progress) {
  const nlohmann::ordered_json json = {{"beats", beats},
                                       {"progress", progress},
                                       {"goodbye", view.said_goodbye},
                                       {"phase", static_cast<int64_t>(view.phase)},
                                       {"step", view.step},
                                       {"waits", view.waits},
                                       {"collective", view.collective.name},
                                       {"group", view.collective.group},
                                       {"sequence", view.collective.sequence},
                                       {"bytes", view.collective.bytes},
                                       {"words", view.words.text},
                                       {"code", view.words.exit_code}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

bool from_json(const std::string& text, RankView& view, int64_t& beats, int64_t& progress) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    beats = json.at("beats"), progress = json.at("progress");
    view.said_goodbye = json.at("goodbye");
    view.phase = static_cast<Phase>(json.at("phase").get<int64_t>());
    view.step = json.at("step"), view.waits = json.at("waits");
    view.collective.name = json.at("collective"), view.collective.group = json.at("group");
    view.collective.sequence = json.at("sequence"), view.collective.bytes = json.at("bytes");
    view.words.text = json.at("words"), view.words.exit_code = json.at("code");
    view.readable = true;
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

std::string doing(const RankView& view) {
  const std::string where = view.phase == Phase::step
                                ? fmt::format("step {}", view.step)
                                : fmt::format("{} after step {}", to_string(view.phase), view.step);
  if (view.collective.sequence == 0) return where + ", before any collective";
  return fmt::format("{}, {} {}", where, view.waits ? "in" : "computing after", view.collective.str());
}

namespace {

std::vector<std::string> all_missing(const RankView& self, std::span<const RankView> others) {
  const auto those = [&](const std::function<std::string(const RankView&)>& why) {
    std::vector<std::string> found;
    for (const RankView& view : others) {
      if (view.said_goodbye) continue;
      const std::string text = why(view);
      if (text.empty()) continue;
      found.push_back(fmt::format("rank {} ({}) {}{}", view.rank, view.place, text,
                                  view.readable ? ": " + doing(view) : ""));
    }
    return found;
  };
  auto found = those([](const RankView& view) { return view.dead ? "is dead" : ""; });
  if (!found.empty()) return found;
  found = those([](const RankView& view) {
    if (view.stopped) return "is stopped (SIGSTOP, or a debugger)";
    return view.silent >= kLooks ? "gives no sign of life" : "";
  });
  if (!found.empty()) return found;
  const auto stands = [](const RankView& view) { return view.unmoved >= kLooks && !view.waits; };
  found = those([&](const RankView& view) { return stands(view) ? "does not get on" : ""; });
  if (!self.waits)
    found.push_back(
        fmt::format("rank {} ({}), this one, does not get on: {}", self.rank, self.place, doing(self)));
  if (!found.empty()) return found;
  // All wait: for each other, in collectives that do not belong together.
  return those([&](const RankView& view) {
    const FlightEvent &theirs = view.collective, &mine = self.collective;
    const bool apart =
        theirs.group == mine.group && (theirs.sequence != mine.sequence || theirs.name != mine.name);
    return apart ? "waits elsewhere" : "";
  });
}

}  // namespace

std::vector<std::string> missing_ranks(const RankView& self, std::span<const RankView> others) {
  std::vector<std::string> missing = all_missing(self, others);
  constexpr size_t kNamed = 8;  // half a large job would fill the terminal of every other rank
  if (missing.size() > kNamed) {
    missing[kNamed] = fmt::format("and {} more", missing.size() - kNamed);
    missing.resize(kNamed + 1);
  }
  return missing;
}

}  // namespace ziggurat::watch
