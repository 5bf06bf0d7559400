#include "data/mapped_file.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/data/atomic_file.h>
#include <ziggurat/io/mapping_faults.h>

namespace ziggurat {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // a pipe must not make it wait
  check(fd >= 0, ErrorKind::data, "cannot open {}: {}", path.string(), reason_of(errno));
  struct stat status = {};
  const bool known = ::fstat(fd, &status) == 0;
  const bool regular = known && S_ISREG(status.st_mode), empty = status.st_size == 0;
  void* address = MAP_FAILED;
  if (regular && !empty) {
    size_ = static_cast<size_t>(status.st_size);
    address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  }
  const int reason = errno;
  ::close(fd);  // the mapping stays
  check(!known || regular, ErrorKind::data, "{} is a folder or device; name a file", path.string());
  if (regular && empty) return;
  check(address != MAP_FAILED, ErrorKind::data, "cannot map {} into memory: {}", path.string(),
        reason_of(reason));
  data_ = static_cast<const std::byte*>(address);
  watch_mapping(data_, size_, path.string());
}

void MappedFile::will_need(size_t offset, size_t bytes) const {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  ::madvise(const_cast<std::byte*>(data_) + begin, offset + bytes - begin, MADV_WILLNEED);  // only a hint
}

MappedFile::~MappedFile() {
  if (!data_) return;
  forget_mapping(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace ziggurat
