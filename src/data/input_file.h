// The bytes of an input: a file or, for the path "-", standard input; gzip and zstd are recognised by their
// first bytes and unpacked. Other formats that are no text are refused by name, also within those two.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <ziggurat/io/descriptor.h>

namespace ziggurat {

// A library's decompressor.
class StreamDecoder {
 public:
  virtual ~StreamDecoder() = default;
  // Takes bytes from the front of `in` and returns how many it wrote to `out`. Both 0: it needs more input.
  // Error (data) for broken input; `name` is for its message.
  virtual size_t decode(std::string_view& in, std::span<char> out, const std::string& name) = 0;
  virtual bool at_end() const = 0;                     // of a whole frame or member: here the input may end
  virtual bool begins(std::string_view in) const = 0;  // may `in`, not empty, be the start of another one?
};

// Each in its own file under libraries/, with a twin for builds without the library that only says so:
// Error (data) naming `name` and the Debian package.
std::unique_ptr<StreamDecoder> new_gzip_decoder(const std::string& name);
std::unique_ptr<StreamDecoder> new_zstd_decoder(const std::string& name);

class InputFile {
 public:
  static constexpr size_t kBlockBytes = size_t{1} << 18;
  // Reads the disk in blocks. Errors (data) name the file: unreadable, or no text (foreign_format).
  explicit InputFile(const std::filesystem::path& path, size_t block_bytes = kBlockBytes);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Fills `out` as far as the input goes and returns how many bytes those are; 0: the end. Errors (data):
  // unreadable, broken or cut-off compressed input, or something after it. Zeros may follow, as from tapes.
  size_t read(std::span<char> out);
  int64_t bytes_taken() const { return bytes_taken_; }  // from the disk
  int64_t known_bytes() const;  // that read() will give in all; 0: not known before they are read

 private:
  bool fill();
  size_t decode(std::span<char> out);
  void check_format();

  std::string name_;
  Descriptor descriptor_;
  int64_t bytes_taken_ = 0;
  std::string block_;      // as on the disk
  std::string_view rest_;  // of block_
  std::unique_ptr<StreamDecoder> decoder_;
  std::string head_;  // decoded to look at the format, not yet given out
};

}  // namespace ziggurat
