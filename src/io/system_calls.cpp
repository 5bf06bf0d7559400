#include "io/system_calls.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ziggurat::system_calls {

namespace fs = std::filesystem;

namespace {

Fault fault_of(std::string_view call, const fs::path& path) {
  const FaultHook* const hook = fault_hook.load(std::memory_order_acquire);
  return hook == nullptr ? Fault{} : (*hook)(call, path);
}

// Calls until it is not interrupted any more; 0 or errno.
template <class F>
int uninterrupted(std::string_view call, const fs::path& path, const F& f) {
  for (;;) {
    const Fault fault = fault_of(call, path);
    if (fault.error == 0 && f() >= 0) return 0;
    const int error = fault.error != 0 ? fault.error : errno;
    if (error != EINTR) return error;
  }
}

}  // namespace

int open(const fs::path& path, int flags, Descriptor& file) {
  return uninterrupted("open", path, [&] {
    file = Descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0644));
    return file.get();
  });
}

int write_all(int fd, const fs::path& path, std::span<const std::byte> bytes) {
  constexpr size_t kMost = size_t{1} << 30;  // Linux writes at most 2 GiB - 4 KiB at once
  while (!bytes.empty()) {
    const Fault fault = fault_of("write", path);
    const size_t n = std::min({bytes.size(), kMost, fault.most_bytes});
    const ssize_t written = fault.error == 0 ? ::write(fd, bytes.data(), n) : -1;
    const int error = fault.error != 0 ? fault.error : errno;
    if (written < 0 && error == EINTR) continue;
    if (written < 0) return error;
    if (written == 0) return ENOSPC;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return 0;
}

int sync(int fd, const fs::path& path) {
  return uninterrupted("fsync", path, [&] { return ::fsync(fd); });
}

int close(Descriptor& file, const fs::path& path) {
  const Fault fault = fault_of("close", path);
  const bool failed = ::close(file.release()) != 0;
  const int error = fault.error != 0 ? fault.error : failed ? errno : 0;
  return error == EINTR ? 0 : error;  // it is closed all the same
}

int rename(const fs::path& from, const fs::path& to) {
  return uninterrupted("rename", to, [&] { return ::rename(from.c_str(), to.c_str()); });
}

int make_folder(const fs::path& path) {
  return uninterrupted("mkdir", path, [&] { return ::mkdir(path.c_str(), 0755); });
}

int remove_file(const fs::path& path) {
  const int error = uninterrupted("unlink", path, [&] { return std::remove(path.c_str()); });
  return error == ENOENT ? 0 : error;
}

int remove_tree(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(fs::symlink_status(path, error))) {
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
      if (const int failed = remove_tree(entry->path())) return failed;
    }
    if (error) return error.value();
  }
  return remove_file(path);
}

}  // namespace ziggurat::system_calls
