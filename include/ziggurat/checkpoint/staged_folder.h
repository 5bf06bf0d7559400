// A folder that appears whole or not at all: it is filled under a temporary name beside its place and
// published by one rename. From create() to publish() or discard() a lock beside it (".NAME.lock") keeps
// other jobs from the same place. Errors are Error(checkpoint) naming path and errno.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ziggurat/io/folder_lock.h>

namespace ziggurat {

class StagedFolder {
 public:
  // Touches nothing yet. A link stands for the folder it leads to. Throws Error(argument) where the path
  // names no folder of its own ("", ".", "/"), or a link that leads nowhere.
  explicit StagedFolder(const std::string& path);
  const std::string& path() const { return temporary_; }  // where to write

  // Empty; what a killed run left is removed. Throws Error(config) naming the job, and touches nothing, while
  // another one is between its create() and publish().
  void create();
  // Throws now where so many bytes more would fill the disk hours later.
  void check_room(int64_t bytes) const;
  void write(const std::string& name, std::string_view text) const;
  // Appears at its place. A folder that stands there is replaced in the same moment, and removed.
  void publish();
  void discard() noexcept;  // what create() made, if it did

 private:
  std::string final_, temporary_;
  std::optional<FolderLock> lock_;
};

}  // namespace ziggurat
