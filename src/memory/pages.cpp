#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

#include <ziggurat/memory/pages.h>

namespace ziggurat {

void release_pages(void* begin, int64_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), at = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (at + page - 1) / page * page,
                  last = (at + static_cast<uintptr_t>(bytes)) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // only a hint
}

}  // namespace ziggurat
