// A file that is being written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include <ziggurat/core/error.h>
#include <ziggurat/io/descriptor.h>

namespace ziggurat {

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Until finish() has returned, nothing of it counts as written. Every failure is an Error of this kind naming
// path, errno and cure; writes that are interrupted or cut short go on.
class OutputFile {
 public:
  enum class Place { must_be_free, replaced };
  explicit OutputFile(const std::filesystem::path& path, ErrorKind kind = ErrorKind::data,
                      Place place = Place::must_be_free);

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(as_bytes(text)); }
  void finish();  // fsync and close; both may report a write that failed late

 private:
  std::filesystem::path path_;
  ErrorKind kind_;
  Descriptor file_;
};

}  // namespace ziggurat
