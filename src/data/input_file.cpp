#include "data/input_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/foreign_format.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

constexpr std::string_view kGzipMagic = "\x1f\x8b", kZstdMagic = "\x28\xb5\x2f\xfd";

// A frame that says nothing; some tools begin their zstd files with one.
bool begins_with_skippable_frame(std::string_view bytes) {
  return bytes.size() >= 4 && (bytes[0] & 0xf0) == 0x50 && bytes.substr(1).starts_with("\x2a\x4d\x18");
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path, size_t block_bytes)
    : name_(path == "-" ? "standard input" : path.string()),
      descriptor_(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)),
      block_(block_bytes, '\0') {
  check(descriptor_.is_open(), ErrorKind::data, "cannot read {}: {}; is it there, and may you read it?",
        name_, std::strerror(errno));
  fill();
  if (rest_.starts_with(kGzipMagic)) decoder_ = new_gzip_decoder(name_);
  if (rest_.starts_with(kZstdMagic) || begins_with_skippable_frame(rest_)) decoder_ = new_zstd_decoder(name_);
  check_format();
}

InputFile::~InputFile() = default;

void InputFile::check_format() {
  head_.resize(kFormatHeadBytes);
  head_.resize(decode(head_));
  const ForeignFormat format = foreign_format(head_);
  check(format.name.empty(), ErrorKind::data, "{} {} {}, not UTF-8 text; {}", name_,
        decoder_ ? "holds" : "is", format.name, format.cure);
}

int64_t InputFile::known_bytes() const {
  struct stat status {};
  const bool known = !decoder_ && ::fstat(descriptor_.get(), &status) == 0 && S_ISREG(status.st_mode);
  return known ? static_cast<int64_t>(status.st_size) : 0;
}

// A whole block, so that the magic bytes are there also when a pipe gives single bytes.
bool InputFile::fill() {
  size_t filled = 0;
  while (filled < block_.size()) {
    const ssize_t n = ::read(descriptor_.get(), block_.data() + filled, block_.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, ErrorKind::data, "cannot read {} to its end: {}", name_, std::strerror(errno));
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  rest_ = std::string_view(block_.data(), filled);
  bytes_taken_ += static_cast<int64_t>(filled);
  return filled > 0;
}

size_t InputFile::read(std::span<char> out) {
  const size_t n = std::min(head_.size(), out.size());
  std::memcpy(out.data(), head_.data(), n);
  head_.erase(0, n);
  return n + decode(out.subspan(n));
}

size_t InputFile::decode(std::span<char> out) {
  size_t written = 0;
  while (written < out.size()) {
    if (!decoder_) {
      if (rest_.empty() && !fill()) break;
      const size_t n = std::min(rest_.size(), out.size() - written);
      std::memcpy(out.data() + written, rest_.data(), n);
      rest_.remove_prefix(n);
      written += n;
      continue;
    }
    if (decoder_->at_end()) {
      rest_.remove_prefix(std::min(rest_.find_first_not_of('\0'), rest_.size()));
      check(rest_.empty() || decoder_->begins(rest_), ErrorKind::data,
            "{}: what follows its compressed data at byte {} is neither more of them nor zeros; is the file "
            "damaged, "
            "or was something appended?",
            name_, bytes_taken_ - static_cast<int64_t>(rest_.size()));
    }
    const size_t before = rest_.size();
    const size_t n = decoder_->decode(rest_, out.subspan(written), name_);
    written += n;
    if (n > 0 || rest_.size() < before) continue;
    if (!fill()) {
      check(decoder_->at_end(), ErrorKind::data,
            "{} is cut off: its compressed data end too early; get it again", name_);
      break;
    }
  }
  return written;
}

}  // namespace ziggurat
