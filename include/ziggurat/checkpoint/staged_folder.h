// A folder that appears whole or not at all: it is filled under a temporary name beside its place and
// published by one rename. All errors are Error(checkpoint) naming path and errno.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ziggurat {

class StagedFolder {
 public:
  explicit StagedFolder(const std::string& path);         // touches nothing yet
  const std::string& path() const { return temporary_; }  // where to write

  void create();  // empty; what a killed run left is removed
  // Throws now where so many bytes more would fill the disk hours later.
  void check_room(int64_t bytes) const;
  void write(const std::string& name, std::string_view text) const;
  // Appears at its place. A folder that stands there is replaced in the same moment, and removed.
  void publish();
  void discard() noexcept;

 private:
  std::string final_, temporary_;
};

}  // namespace ziggurat
