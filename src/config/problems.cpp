#include <ziggurat/config/problems.h>
#include <ziggurat/core/error.h>

namespace ziggurat {

void Problems::add(std::string_view key, std::string_view message) {
  std::string full = scope_;
  if (!full.empty() && !key.empty()) full += '.';
  full += key;
  const std::string place = place_of_ ? place_of_(full) : "";
  std::string line = place;
  if (!place.empty()) line += ": ";
  line += full;
  if (!full.empty()) line += ": ";
  line += message;
  add_line(std::move(line));
}

void Problems::add_line(std::string line) {
  if (++count_ <= kListed) lines_.push_back(std::move(line));
}

void Problems::throw_if_any() const {
  if (count_ == 0) return;
  std::string message;
  for (const std::string& line : lines_) {
    if (!message.empty()) message += '\n';
    message += line;
  }
  if (count_ > kListed) message += fmt::format("\n(and {} more)", count_ - kListed);
  throw Error(ErrorKind::config, message);
}

}  // namespace ziggurat
