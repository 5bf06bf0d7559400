#include <cerrno>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include <ziggurat/io/files.h>
#include <ziggurat/io/mapped_file.h>
#include <ziggurat/io/mapping_faults.h>

namespace ziggurat {

MappedFile::MappedFile(const ReadOnlyFile& file) {
  const auto size = static_cast<size_t>(file.identity().bytes);
  if (size == 0) return;
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.file_.get(), 0);
  if (address == MAP_FAILED) fail_errno(file.kind_, "map", file.path(), errno);
  data_ = static_cast<const std::byte*>(address);
  size_ = size;
  watch_mapping(data_, size_, file.path().string());
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
