// Memory that a kernel needs while it runs.
#pragma once

#include <cstdint>

#include <ziggurat/memory/arena.h>

namespace ziggurat::kernels {

// Uninitialised, for n elements; freed by the caller's ArenaScope.
template <class T>
T* take(Arena& arena, int64_t n) {
  return static_cast<T*>(arena.allocate(n * static_cast<int64_t>(sizeof(T))));
}

}  // namespace ziggurat::kernels
