#include "watch/flight_text.h"

#include <fmt/format.h>

namespace ziggurat::watch {

std::string flight_text(const FlightLog& log) {
  const int64_t now = FlightLog::now();
  const auto seconds = [](int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; };
  std::string text = "    seconds ago  milliseconds  event\n";
  for (const FlightEvent& event : log.events()) {
    const std::string took = event.is_phase ? ""
                             : event.ended == 0
                                 ? "not ended"
                                 : fmt::format("{:.3f}", 1e3 * seconds(event.ended - event.began));
    text += fmt::format("{:>15.6f}  {:>12}  {}{}\n", seconds(now - event.began), took,
                        event.is_phase ? "begins " : "", event.str());
  }
  return text;
}

}  // namespace ziggurat::watch
