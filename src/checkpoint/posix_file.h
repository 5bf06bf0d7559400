// Files as a checkpoint needs them: every failure is an Error(checkpoint) naming path and errno, and what was
// written is on the disk before anybody relies on it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <ziggurat/checkpoint/safetensors.h>

namespace ziggurat {

[[noreturn]] void fail_errno(const char* what, const std::string& path, int error);

// A new file. Until finish() has returned, nothing of it counts as written.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);  // must not exist yet
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void finish();  // fsync and close; both may report a write that failed late

 private:
  std::string path_;
  int fd_;
};

// A regular file (never a symbolic link), open for reading.
class ReadOnlyFile {
 public:
  explicit ReadOnlyFile(const std::string& path);
  // The one that was opened before; throws when it has been cut off or replaced since.
  ReadOnlyFile(const std::string& path, const FileIdentity& before);
  ~ReadOnlyFile();
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;

  const FileIdentity& identity() const { return identity_; }
  // The bytes from `first` on, all of them. Throws when the file ends before: it was cut off.
  void read(int64_t first, std::span<std::byte> into) const;
  std::span<const std::byte> map() const;  // the whole file; release with unmap

 private:
  std::string path_;
  int fd_;
  FileIdentity identity_;
};

void sync_directory(const std::string& path);
void rename_path(const std::string& from, const std::string& to);

// Puts `from` in the place of the existing directory `to` in one step where the file system can, so that a
// kill never leaves neither. Afterwards the old contents stand at `from`.
void exchange_paths(const std::string& from, const std::string& to);

// Makes it and its parents, each on the disk when this returns: or a power cut loses what was saved inside.
void make_directory(const std::string& path);

void remove_tree(const std::string& path);

void unmap(std::span<const std::byte> bytes) noexcept;

std::string read_text(const std::string& path);

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace ziggurat
