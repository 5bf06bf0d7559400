#include "data/atomic_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

class FileDescriptor {
 public:
  FileDescriptor(const std::filesystem::path& path, int flags) : fd_(::open(path.c_str(), flags, 0644)) {
    check(fd_ >= 0, ErrorKind::data, "cannot open {}: {}", path.string(), std::strerror(errno));
  }
  ~FileDescriptor() { ::close(fd_); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void sync_path(const std::filesystem::path& path, int flags) {
  const FileDescriptor file(path, flags);
  check(::fsync(file.get()) == 0, ErrorKind::data, "cannot write {} to the disk: {} (is the disk full?)",
        path.string(), std::strerror(errno));
}

std::string to_hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

}  // namespace

void write_file(const std::filesystem::path& file, std::string_view bytes) {
  const FileDescriptor out(file, O_WRONLY | O_CREAT | O_TRUNC);
  while (!bytes.empty()) {
    const ssize_t n = ::write(out.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      std::error_code ignored;
      std::filesystem::remove(file, ignored);
      fail(ErrorKind::data, "cannot write {}: {}; make room or choose another folder, then run it again",
           file.string(), std::strerror(reason));
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void write_file_atomically(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::path temporary = file;
  temporary += ".tmp";
  write_file(temporary, text);
  commit_file(temporary, file);
}

void commit_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  sync_path(from, O_RDWR);
  std::error_code reason;
  std::filesystem::rename(from, to, reason);
  check(!reason, ErrorKind::data, "cannot rename {} to {}: {}", from.string(), to.string(), reason.message());
  const std::filesystem::path folder = to.parent_path();
  sync_path(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
}

std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  check(in.good(), ErrorKind::data, "cannot read {}: {}", file.string(), std::strerror(errno));
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  check(!in.bad(), ErrorKind::data, "cannot read {} to its end: {}", file.string(), std::strerror(errno));
  return text;
}

std::string xxh3_of_file(const std::filesystem::path& file) {
  const FileDescriptor in(file, O_RDONLY);
  const auto state =
      std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)>(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::string block(size_t{1} << 20, '\0');
  for (;;) {
    const ssize_t n = ::read(in.get(), block.data(), block.size());
    check(n >= 0, ErrorKind::data, "cannot read {}: {}", file.string(), std::strerror(errno));
    if (n == 0) break;
    XXH3_128bits_update(state.get(), block.data(), static_cast<size_t>(n));
  }
  return to_hex(XXH3_128bits_digest(state.get()));
}

std::string xxh3_of_bytes(std::string_view bytes) { return to_hex(XXH3_128bits(bytes.data(), bytes.size())); }

}  // namespace ziggurat
