// `ziggurat data bench`: how fast one thread gets tokens out of shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>

namespace ziggurat {

struct BenchOptions {
  std::filesystem::path path;
  std::string split = "train";
  int64_t sequence_length = 2048;
  double seconds = 1;  // of each measurement
};

// Prints how long opening takes, then tokens per second of reading the stream from its begin, and of samples
// in random order as the trainer loads them. The first pass over a file reads the disk, later ones the page
// cache: run it twice.
void bench_shards(const BenchOptions& options, std::ostream& out);

}  // namespace ziggurat
