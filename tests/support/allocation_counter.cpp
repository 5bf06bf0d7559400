#include "tests/support/allocation_counter.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include <dnnl.h>

namespace {
std::atomic<int64_t> count{0};
thread_local bool in_library = false;

void* counted(void* p) {
  if (!in_library) count.fetch_add(1, std::memory_order_relaxed);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

namespace ziggurat::test {
int64_t allocation_count() { return count.load(std::memory_order_relaxed); }
}  // namespace ziggurat::test

// The array and nothrow forms of the standard library call these.
void* operator new(std::size_t bytes) { return counted(std::malloc(bytes > 0 ? bytes : 1)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto line = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(line, (bytes / line + 1) * line));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

// oneDNN makes a small map of every primitive's arguments and frees it on return. The linker puts this in
// front of it.
extern "C" dnnl_status_t __real_dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream,
                                                       int number, const dnnl_exec_arg_t* arguments);
extern "C" dnnl_status_t __wrap_dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream,
                                                       int number, const dnnl_exec_arg_t* arguments) {
  in_library = true;
  const dnnl_status_t status = __real_dnnl_primitive_execute(primitive, stream, number, arguments);
  in_library = false;
  return status;
}
