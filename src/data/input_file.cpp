#include "data/input_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

constexpr size_t kBlockBytes = size_t{1} << 18;
constexpr std::string_view kGzipMagic = "\x1f\x8b", kZstdMagic = "\x28\xb5\x2f\xfd";

}  // namespace

InputFile::InputFile(const std::filesystem::path& path)
    : name_(path == "-" ? "standard input" : path.string()),
      descriptor_(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  check(descriptor_ >= 0, ErrorKind::data, "cannot read {}: {}; is it there, and may you read it?", name_,
        std::strerror(errno));
  try {
    fill();
    if (rest_.starts_with(kGzipMagic)) decoder_ = new_gzip_decoder(name_);
    if (rest_.starts_with(kZstdMagic)) decoder_ = new_zstd_decoder(name_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

InputFile::~InputFile() { ::close(descriptor_); }

// A whole block, so that the magic bytes are there also when a pipe gives single bytes.
bool InputFile::fill() {
  block_.resize(kBlockBytes);
  size_t filled = 0;
  while (filled < kBlockBytes) {
    const ssize_t n = ::read(descriptor_, block_.data() + filled, kBlockBytes - filled);
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
    const size_t before = rest_.size();
    const size_t n = decoder_->decode(rest_, out.subspan(written), name_);
    written += n;
    if (n > 0 || rest_.size() < before) continue;
    if (!fill()) {
      check(decoder_->at_end(), ErrorKind::data, "{} is cut off: its compressed data end too early", name_);
      break;
    }
  }
  return written;
}

}  // namespace ziggurat
