#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <ziggurat/io/untrusted_json.h>

namespace ziggurat {

using nlohmann::json;

json parse_untrusted_json(std::string_view text) {
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw JsonFault(fmt::format("it has a NUL at byte {}", nul + 1));
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= kMostJsonLevels) {
      throw JsonFault(fmt::format("it nests lists and objects deeper than {}", kMostJsonLevels));
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw JsonFault(fmt::format("the key {} stands twice: take one of both out", parsed.dump()));
    }
    return true;
  };
  try {
    return json::parse(text, on_event);
  } catch (const json::exception& e) {
    // The library quotes what it read last, which may be no UTF-8.
    std::string why = e.what();
    for (char& c : why) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    }
    constexpr size_t kMost = 300;
    throw JsonFault(why.size() > kMost ? why.substr(0, kMost) + "..." : why);
  }
}

}  // namespace ziggurat
