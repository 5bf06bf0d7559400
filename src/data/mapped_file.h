// A file mapped into memory, read-only.
#pragma once

#include <cstddef>
#include <filesystem>

namespace ziggurat {

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(
      const std::filesystem::path& path);  // error (data) names the file; an empty one maps to nothing
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // Starts reading these bytes, which must lie within the file, into the page cache; does not wait.
  void will_need(size_t offset, size_t bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ziggurat
