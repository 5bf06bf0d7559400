#include "data/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ziggurat/core/error.h>

namespace ziggurat {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  check(fd >= 0, ErrorKind::data, "cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat status;
  void* address = MAP_FAILED;
  if (::fstat(fd, &status) == 0 && status.st_size > 0) {
    size_ = static_cast<size_t>(status.st_size);
    address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  }
  const int reason = errno;
  ::close(fd);  // the mapping stays
  check(address != MAP_FAILED, ErrorKind::data, "cannot map {} into memory: {}", path.string(),
        std::strerror(reason));
  data_ = static_cast<const std::byte*>(address);
}

void MappedFile::will_need(size_t offset, size_t bytes) const {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  ::madvise(const_cast<std::byte*>(data_) + begin, offset + bytes - begin, MADV_WILLNEED);  // only a hint
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace ziggurat
