// The hash of Ziggurat's own files: XXH3 of 128 bits. It finds accidents (bit rot, truncation, mixed-up
// files), not forgeries. 128 bits cost as much time as 64 and leave no chance of a collision among all shards
// of a run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include <ziggurat/core/error.h>

namespace ziggurat {

class Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(std::span<const std::byte> bytes);
  int64_t bytes() const { return bytes_; }
  std::string hex() const;  // 32 digits, of all bytes so far

 private:
  struct State;
  std::unique_ptr<State> state_;
  int64_t bytes_ = 0;
};

// "xxh3-128:" and the digits.
std::string content_hash(std::span<const std::byte> bytes);
std::string content_hash(const Hasher& hasher);

std::string hex_hash_of_file(const std::filesystem::path& file, ErrorKind kind = ErrorKind::data);

}  // namespace ziggurat
