// What Linux tells of itself in text files.
#pragma once

#include <cstdint>
#include <string>

namespace ziggurat {

std::string first_line(const std::string& path);  // empty if there is no such file

// A line of /proc/meminfo, such as "MemTotal", in bytes; 0 if there is none.
int64_t meminfo(const std::string& key);

}  // namespace ziggurat
