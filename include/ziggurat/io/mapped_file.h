// A file mapped into memory, read-only; a fault in it is told with its name (mapping_faults.h).
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include <ziggurat/io/read_only_file.h>

namespace ziggurat {

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const ReadOnlyFile& file);  // stays when `file` is closed; an empty one maps to nothing
  explicit MappedFile(const std::filesystem::path& path) : MappedFile(ReadOnlyFile(path)) {}
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Starts reading these bytes, which must lie within the file, into the page cache; does not wait.
  void will_need(size_t offset, size_t bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ziggurat
