#include "posix_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/io/mapping_faults.h>

namespace ziggurat {

namespace fs = std::filesystem;

namespace {

int retry_open(const std::string& path, int flags) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// EINTR comes before anything was synced and may be tried again; any other error means that data is lost, and
// a second fsync would hide that.
void sync_descriptor(int fd, const std::string& path) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) fail_errno("cannot fsync", path, errno);
  }
}

}  // namespace

void fail_errno(const char* what, const std::string& path, int error) {
  const bool no_room = error == ENOSPC || error == EDQUOT || error == EFBIG;
  fail(ErrorKind::checkpoint, "[checkpoint] {} {}: {} (errno {}){}", what, path, std::strerror(error), error,
       no_room ? "; make room or raise the limit (ulimit -f, quota), or keep fewer checkpoints with "
                 "checkpoint.keep"
               : "");
}

OutputFile::OutputFile(const std::string& path)
    : path_(path), fd_(retry_open(path, O_WRONLY | O_CREAT | O_EXCL)) {
  if (fd_ < 0) fail_errno("cannot create", path_, errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux writes at most 2 GiB - 4 KiB at once
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_errno("cannot write", path_, n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::finish() {
  sync_descriptor(fd_, path_);
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) fail_errno("cannot close", path_, errno);
}

void sync_directory(const std::string& path) {
  const Descriptor fd(retry_open(path, O_RDONLY | O_DIRECTORY));
  if (fd.get() < 0) fail_errno("cannot open the directory", path, errno);
  sync_descriptor(fd.get(), path);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_errno("cannot rename to", to, errno);
}

void exchange_paths(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_errno("cannot exchange with", to, errno);
  const std::string aside = from + ".aside.tmp";
  rename_path(to, aside);
  rename_path(from, to);
  rename_path(aside, from);
}

void make_directory(const std::string& path) {
  if (path.empty() || fs::is_directory(path)) return;
  const std::string parent = fs::path(path).parent_path().string();
  make_directory(parent);
  std::error_code error;
  fs::create_directory(path, error);
  if (error) fail_errno("cannot create the directory", path, error.value());
  sync_directory(parent.empty() ? "." : parent);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail_errno("cannot remove", path, error.value());
}

ReadOnlyFile::ReadOnlyFile(const std::string& path)
    : path_(path), fd_(retry_open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)) {
  if (fd_ < 0) fail_errno("cannot open", path, errno);
  struct stat status {};
  const int error = ::fstat(fd_, &status) == 0 ? 0 : errno;
  if (error != 0 || !S_ISREG(status.st_mode)) ::close(fd_);
  if (error != 0) fail_errno("cannot stat", path, error);
  check(S_ISREG(status.st_mode), ErrorKind::checkpoint, "[checkpoint] {} is not a regular file", path);
  identity_ = {status.st_dev, status.st_ino, status.st_size};
}

ReadOnlyFile::ReadOnlyFile(const std::string& path, const FileIdentity& before) : ReadOnlyFile(path) {
  check(identity_ == before, ErrorKind::checkpoint,
        "[checkpoint] {} {} while it was in use: it had {} bytes, now it has {}. Files must stay as they are "
        "while they are read: make or copy this one again",
        path, identity_.inode == before.inode ? "was cut off" : "was replaced", before.bytes,
        identity_.bytes);
}

ReadOnlyFile::~ReadOnlyFile() { ::close(fd_); }

void ReadOnlyFile::read(int64_t first, std::span<std::byte> into) const {
  constexpr size_t kMaxRead = size_t{1} << 30;
  while (!into.empty()) {
    const ssize_t n = ::pread(fd_, into.data(), std::min(into.size(), kMaxRead), first);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("cannot read", path_, errno);
    check(n > 0, ErrorKind::checkpoint,
          "[checkpoint] {} was cut off while it was in use: it ends at byte {}. Files must stay as they are "
          "while they are read: make or copy this one again",
          path_, first);
    into = into.subspan(static_cast<size_t>(n));
    first += n;
  }
}

std::span<const std::byte> ReadOnlyFile::map() const {
  if (identity_.bytes == 0) return {};
  const auto size = static_cast<size_t>(identity_.bytes);
  void* base = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd_, 0);
  if (base == MAP_FAILED) fail_errno("cannot map", path_, errno);
  watch_mapping(base, size, path_);
  return {static_cast<const std::byte*>(base), size};
}

void unmap(std::span<const std::byte> bytes) noexcept {
  if (bytes.empty()) return;
  forget_mapping(bytes.data());
  ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
}

std::string read_text(const std::string& path) {
  const ReadOnlyFile file(path);
  std::string text(static_cast<size_t>(file.identity().bytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace ziggurat
