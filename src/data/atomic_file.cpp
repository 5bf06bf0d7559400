#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <ziggurat/core/error.h>
#include <ziggurat/data/atomic_file.h>

namespace ziggurat {
namespace {

class FileDescriptor {
 public:
  FileDescriptor(const std::filesystem::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    check(fd_ >= 0, ErrorKind::data, "cannot open {}: {}", path.string(), reason_of(errno));
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
  const int reason = ::fsync(file.get()) == 0 ? 0 : errno;
  check(reason == 0, ErrorKind::data, "cannot write {} to the disk: {} (is the disk full?)", path.string(),
        std::strerror(reason));
}

// Fills the front of `block`; how many bytes, 0 at the end.
size_t read_some(int fd, std::string& block, const std::filesystem::path& file) {
  ssize_t n;
  do {
    n = ::read(fd, block.data(), block.size());
  } while (n < 0 && errno == EINTR);
  check(n >= 0, ErrorKind::data, "cannot read {}: {}", file.string(), reason_of(errno));
  return static_cast<size_t>(n);
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
  try {
    commit_file(temporary, file);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

void commit_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  sync_file(from);
  rename_durably(from, to);
}

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code reason;
  std::filesystem::rename(from, to, reason);
  check(!reason, ErrorKind::data, "cannot rename {} to {}: {}", from.string(), to.string(), reason.message());
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  rename_file(from, to);
  sync_folder(to.parent_path());
}

void sync_file(const std::filesystem::path& file) { sync_path(file, O_RDWR); }

void sync_folder(const std::filesystem::path& folder) {
  sync_path(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
}

void remove_file(const std::filesystem::path& file) {
  std::error_code reason;
  std::filesystem::remove(file, reason);
  check(!reason, ErrorKind::data, "cannot remove {}: {}", file.string(), reason.message());
}

void remove_folder(const std::filesystem::path& folder) {
  std::error_code reason;
  std::filesystem::remove_all(folder, reason);
  check(!reason, ErrorKind::data, "cannot remove the folder {}: {}", folder.string(), reason.message());
}

std::string read_file(const std::filesystem::path& file) {
  const FileDescriptor in(file, O_RDONLY);
  std::string text, block(size_t{1} << 16, '\0');
  while (const size_t n = read_some(in.get(), block, file)) text.append(block, 0, n);
  return text;
}

std::string xxh3_of_file(const std::filesystem::path& file) {
  const FileDescriptor in(file, O_RDONLY);
  const auto state =
      std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)>(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::string block(size_t{1} << 20, '\0');
  while (const size_t n = read_some(in.get(), block, file)) XXH3_128bits_update(state.get(), block.data(), n);
  return to_hex(XXH3_128bits_digest(state.get()));
}

std::string xxh3_of_bytes(std::string_view bytes) { return to_hex(XXH3_128bits(bytes.data(), bytes.size())); }

std::string reason_of(int error_number) {
  const std::string reason = fmt::format("{} (errno {})", std::strerror(error_number), error_number);
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return reason + "; is the path right, and the disk mounted?";
    case EACCES:
    case EPERM:
      return reason + "; its owner, or whoever runs this machine, must give you access (see `ls -l`, `id`)";
    case EISDIR:
      return reason + "; name a file in it";
    case EMFILE:
    case ENFILE:
      return reason + "; too many files are open: raise `ulimit -n`";
    case ENOMEM:
      return reason + "; too little memory is left: raise `ulimit -v` or the job's limit";
    case EAGAIN:
    case ENOLCK:
      return reason +
             "; another program holds a lock on it, or its file system cannot lock: end that program, or "
             "set HDF5_USE_FILE_LOCKING=FALSE where nobody writes it";
    case EIO:
    case ESTALE:
    case ENXIO:
    case ENODEV:
    case EREMOTEIO:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ECONNREFUSED:
    case ECONNRESET:
      return reason +
             "; its disk or network file system fails: try again, then ask whoever runs the storage "
             "(the kernel's log says more)";
    default:
      return reason;
  }
}

}  // namespace ziggurat
