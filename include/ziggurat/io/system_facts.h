// What Linux tells of itself.
#pragma once

#include <cstdint>
#include <string>

namespace ziggurat {

std::string first_line(const std::string& path);  // empty if there is no such file

// A line of /proc/meminfo, such as "MemTotal", in bytes; 0 if there is none.
int64_t meminfo(const std::string& key);

std::string host_name();  // "unknown" if there is none

}  // namespace ziggurat
