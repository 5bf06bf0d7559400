#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>

#include "io/system_calls.h"
#include <ziggurat/io/files.h>
#include <ziggurat/io/read_only_file.h>

namespace ziggurat {

// O_NONBLOCK: a pipe must not make it wait.
ReadOnlyFile::ReadOnlyFile(const std::filesystem::path& path, ErrorKind kind, Links links)
    : path_(path), kind_(kind) {
  const int flags = O_RDONLY | O_NONBLOCK | (links == Links::refused ? O_NOFOLLOW : 0);
  if (const int error = system_calls::open(path, flags, file_)) fail_errno(kind, "open", path, error);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) fail_errno(kind, "stat", path, errno);
  check(S_ISREG(status.st_mode), kind, "{} is no regular file but a folder or device; name a file",
        path.string());
  identity_ = {status.st_dev, status.st_ino, status.st_size};
}

ReadOnlyFile::ReadOnlyFile(const std::filesystem::path& path, const FileIdentity& before, ErrorKind kind,
                           Links links)
    : ReadOnlyFile(path, kind, links) {
  check(
      identity_ == before, kind,
      "{} {} while it was in use: it had {} bytes, now it has {}. Files must stay as they are while they are "
      "read: make or copy this one again",
      path.string(), identity_.inode == before.inode ? "was cut off" : "was replaced", before.bytes,
      identity_.bytes);
}

void ReadOnlyFile::read(int64_t first, std::span<std::byte> into) const {
  constexpr size_t kMost = size_t{1} << 30;
  while (!into.empty()) {
    const ssize_t n = ::pread(file_.get(), into.data(), std::min(into.size(), kMost), first);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(kind_, "read", path_, errno);
    check(
        n > 0, kind_,
        "{} was cut off while it was in use: it ends at byte {}. Files must stay as they are while they are "
        "read: make or copy this one again",
        path_.string(), first);
    into = into.subspan(static_cast<size_t>(n));
    first += n;
  }
}

std::string ReadOnlyFile::read_all() const {
  std::string text(static_cast<size_t>(identity_.bytes), '\0');
  read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace ziggurat
