#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ziggurat/config/option_values.h>

namespace ziggurat {
namespace {

template <class T>
bool parse(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// An option's text can be as long as a command line and hold anything.
std::string in_quotes(const std::string& text) {
  constexpr size_t kLongest = 60;
  std::string shown;
  for (const char c : text.substr(0, kLongest)) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    shown += control ? fmt::format("\\x{:02x}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return fmt::format("'{}{}'", shown, text.size() > kLongest ? "..." : "");
}

// What `--help` shows behind the type of the value: `shown`.
CLI::Validator validator(const std::string& expected, std::function<bool(std::string&)> good,
                         const std::string& shown = "") {
  return CLI::Validator(
      [expected, good = std::move(good)](std::string& text) {
        return good(text) ? std::string() : fmt::format("expected {}, got {}", expected, in_quotes(text));
      },
      shown);
}

}  // namespace

CLI::Validator whole_number(int64_t least, uint64_t most) {
  const std::string range = most == kLargestOption ? fmt::format("of at least {}", least)
                                                   : fmt::format("from {} to {}", least, most);
  const std::string top = most == kLargestOption ? fmt::format(" (and at most {})", most) : "";
  return validator("a whole number " + range + top, [least, most](std::string& text) {
    int64_t negative = 0;
    uint64_t value = 0;
    if (text.starts_with('-')) {
      if (!parse(text, negative) || negative < least) return false;
      text = fmt::format("{}", negative);
      return true;
    }
    const bool in_range = parse(text.starts_with('+') ? text.substr(1) : text, value) && value <= most &&
                          (least <= 0 || value >= static_cast<uint64_t>(least));
    if (in_range) text = fmt::format("{}", value);
    return in_range;
  });
}

CLI::Validator real_number(double least, double most, bool above_least) {
  const std::string range = above_least ? fmt::format("above {} and at most {}", least, most)
                                        : fmt::format("from {} to {}", least, most);
  return validator("a number " + range, [least, most, above_least](std::string& text) {
    double value = 0;
    if (!parse(text.starts_with('+') ? text.substr(1) : text, value) || !std::isfinite(value)) return false;
    return value <= most && (above_least ? value > least : value >= least);
  });
}

CLI::Validator not_empty() {
  return validator("something", [](std::string& text) { return !text.empty(); });
}

CLI::Validator one_of(std::vector<std::pair<std::string, std::string>> words) {
  std::vector<std::string> names;
  for (const auto& word : words) names.push_back(word.first);
  const auto good = [words = std::move(words)](std::string& text) {
    for (const auto& [word, value] : words) {
      if (text != word) continue;
      text = value;
      return true;
    }
    return false;
  };
  return validator(fmt::format("one of {}", fmt::join(names, ", ")), good,
                   fmt::format("{{{}}}", fmt::join(names, ",")));
}

CLI::Validator one_of(const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, std::string>> same;
  for (const std::string& word : words) same.emplace_back(word, word);
  return one_of(same);
}

}  // namespace ziggurat
