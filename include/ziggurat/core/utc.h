#pragma once

#include <ctime>
#include <string>

#include <fmt/chrono.h>

namespace ziggurat {

// The time now as files and messages tell it: UTC, ISO 8601, "2026-01-01T00:00:00Z".
inline std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

}  // namespace ziggurat
