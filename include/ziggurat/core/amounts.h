// Numbers as people read them in a log. What they write in a config: config/units.h.
#pragma once

#include <string>

namespace ziggurat {

// Three significant digits, not exact.
std::string format_count(double count);  // 1.26e9 -> "1.26B"
std::string format_bytes(double bytes);  // 2147483648 -> "2GiB"
std::string format_duration(
    double seconds);  // the two largest parts: "6d04h", "1h30m", "8m05s", "12s", "350ms"

}  // namespace ziggurat
