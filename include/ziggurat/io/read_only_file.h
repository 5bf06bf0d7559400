// A regular file, open for reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include <ziggurat/core/error.h>
#include <ziggurat/io/descriptor.h>

namespace ziggurat {

// Which file it is, as long as nobody replaces, cuts or appends to it.
struct FileIdentity {
  uint64_t device = 0, inode = 0;
  int64_t bytes = 0;
  bool operator==(const FileIdentity&) const = default;
};

// Files of a checkpoint are no links: they would lead out of it.
enum class Links { refused, followed };

// Every failure is an Error of this kind naming path, errno and cure.
class ReadOnlyFile {
 public:
  explicit ReadOnlyFile(const std::filesystem::path& path, ErrorKind kind = ErrorKind::data,
                        Links links = Links::followed);
  // The one that was opened before; throws when it has been cut off or replaced since.
  ReadOnlyFile(const std::filesystem::path& path, const FileIdentity& before, ErrorKind kind, Links links);

  const std::filesystem::path& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }
  int descriptor() const { return file_.get(); }
  // The bytes from `first` on, all of them. Throws when the file ends before: it was cut off.
  void read(int64_t first, std::span<std::byte> into) const;
  std::string read_all() const;

 private:
  friend class MappedFile;

  std::filesystem::path path_;
  ErrorKind kind_;
  Descriptor file_;
  FileIdentity identity_;
};

}  // namespace ziggurat
