// What gcc calls in code that it compiles for its thread sanitizer, here without that sanitizer.
#include <cstddef>
#include <cstdint>

#include "tests/emulation/block.h"

using ziggurat::emulation::Access;
using ziggurat::emulation::see_access;

#define ZIGGURAT_HOOK(name, bytes, kind)                                                                \
  extern "C" void name(void* address) {                                                                 \
    see_access(reinterpret_cast<uintptr_t>(address), bytes, Access::kind, __builtin_return_address(0)); \
  }
#define ZIGGURAT_HOOKS(bytes)                                \
  ZIGGURAT_HOOK(__tsan_read##bytes, bytes, load)             \
  ZIGGURAT_HOOK(__tsan_write##bytes, bytes, store)           \
  ZIGGURAT_HOOK(__tsan_unaligned_read##bytes, bytes, load)   \
  ZIGGURAT_HOOK(__tsan_unaligned_write##bytes, bytes, store) \
  ZIGGURAT_HOOK(__tsan_volatile_read##bytes, bytes, load)    \
  ZIGGURAT_HOOK(__tsan_volatile_write##bytes, bytes, store)
ZIGGURAT_HOOKS(1)
ZIGGURAT_HOOKS(2)
ZIGGURAT_HOOKS(4)
ZIGGURAT_HOOKS(8)
ZIGGURAT_HOOKS(16)

namespace {
// Sizes that no instruction has are moved in smaller pieces.
void see_range(void* address, size_t bytes, Access kind, const void* site) {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const size_t piece = (begin | bytes) % 16 == 0 ? 16 : (begin | bytes) % 4 == 0 ? 4 : 1;
  for (size_t i = 0; i < bytes; i += piece) {
    see_access(begin + i, piece, kind, static_cast<const char*>(site) + i / piece);
  }
}
}  // namespace

extern "C" {
void __tsan_read_range(void* address, size_t bytes) {
  see_range(address, bytes, Access::load, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  see_range(address, bytes, Access::store, __builtin_return_address(0));
}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
}

// Atomic operations of the host's own code (counts of shared pointers), which gcc hands over whole.
#define ZIGGURAT_FETCH(bits, type, operation)                                                   \
  type __tsan_atomic##bits##_##operation(volatile void* address, type value, int) {             \
    return __atomic_##operation(static_cast<volatile type*>(address), value, __ATOMIC_SEQ_CST); \
  }
#define ZIGGURAT_COMPARE(bits, type, strength, weak)                                                         \
  bool __tsan_atomic##bits##_compare_exchange_##strength(volatile void* address, void* expected, type value, \
                                                         int, int) {                                         \
    return __atomic_compare_exchange_n(static_cast<volatile type*>(address), static_cast<type*>(expected),   \
                                       value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                     \
  }
#define ZIGGURAT_ATOMICS(bits, type)                                                           \
  extern "C" {                                                                                 \
  type __tsan_atomic##bits##_load(const volatile void* address, int) {                         \
    return __atomic_load_n(static_cast<const volatile type*>(address), __ATOMIC_SEQ_CST);      \
  }                                                                                            \
  void __tsan_atomic##bits##_store(volatile void* address, type value, int) {                  \
    __atomic_store_n(static_cast<volatile type*>(address), value, __ATOMIC_SEQ_CST);           \
  }                                                                                            \
  type __tsan_atomic##bits##_exchange(volatile void* address, type value, int) {               \
    return __atomic_exchange_n(static_cast<volatile type*>(address), value, __ATOMIC_SEQ_CST); \
  }                                                                                            \
  ZIGGURAT_FETCH(bits, type, fetch_add)                                                        \
  ZIGGURAT_FETCH(bits, type, fetch_sub)                                                        \
  ZIGGURAT_FETCH(bits, type, fetch_and)                                                        \
  ZIGGURAT_FETCH(bits, type, fetch_or)                                                         \
  ZIGGURAT_FETCH(bits, type, fetch_xor)                                                        \
  ZIGGURAT_COMPARE(bits, type, strong, false)                                                  \
  ZIGGURAT_COMPARE(bits, type, weak, true)                                                     \
  }
ZIGGURAT_ATOMICS(8, uint8_t)
ZIGGURAT_ATOMICS(16, uint16_t)
ZIGGURAT_ATOMICS(32, uint32_t)
ZIGGURAT_ATOMICS(64, uint64_t)
