#pragma once

#include <string>

#include <ziggurat/core/flight_log.h>

namespace ziggurat::watch {

// The newest events of a log, one a line, oldest first, with their times before now.
std::string flight_text(const FlightLog& log);

}  // namespace ziggurat::watch
