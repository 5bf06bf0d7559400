#pragma once

#include <string>
#include <string_view>

#include <ziggurat/io/descriptor.h>

namespace ziggurat {

// A file that grows by whole pieces: each is appended whole or not at all. On a full disk it warns once and
// goes on.
class AppendedFile {
 public:
  AppendedFile() = default;                        // writes nothing: ranks other than 0
  explicit AppendedFile(const std::string& path);  // throws Error(config) naming path and errno

  void append(std::string_view piece);
  void sync();  // to the disk

 private:
  std::string path_;
  Descriptor file_;
  bool warned_ = false;
};

}  // namespace ziggurat
