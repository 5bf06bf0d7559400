#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/io/appended_file.h>

namespace ziggurat {

AppendedFile::AppendedFile(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  check(file_.is_open(), ErrorKind::config, "output: cannot write {}: {} (errno {})", path,
        std::strerror(errno), errno);
}

void AppendedFile::append(std::string_view piece) {
  if (!file_.is_open()) return;
  const off_t end = ::lseek(file_.get(), 0, SEEK_END);
  size_t done = 0;
  ssize_t n = 0;
  while (done < piece.size()) {
    n = ::write(file_.get(), piece.data() + done, piece.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  if (done == piece.size()) return;
  const int error = n < 0 ? errno : ENOSPC;
  if (done > 0 && ::ftruncate(file_.get(), end) != 0) {
  }  // half a piece stays: who reads the file drops it
  if (!std::exchange(warned_, true)) {
    warn("{} cannot be written: {} (errno {}); training goes on, what comes now is missing there", path_,
         std::strerror(error), error);
  }
}

void AppendedFile::sync() {
  if (file_.is_open()) ::fsync(file_.get());
}

}  // namespace ziggurat
