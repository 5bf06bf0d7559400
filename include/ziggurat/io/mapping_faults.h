// A mapped file that was cut off, or whose disk fails, kills who reads it by SIGBUS. Here the process knows
// its mapped files, and says which one it was.
#pragma once

#include <cstddef>
#include <string>

namespace ziggurat {

// From now on, and until forget_mapping, a fault in [begin, begin + bytes) is the fault of this file.
void watch_mapping(const void* begin, size_t bytes, const std::string& path);
void forget_mapping(const void* begin) noexcept;

// Such a fault ends the process with exit code 3, after a line on stderr that names the file and `who` this
// process is among others ("rank 1"; empty: there are none). Other faults stay as they are. For src/apps,
// once.
void report_mapping_faults(const std::string& who);

}  // namespace ziggurat
