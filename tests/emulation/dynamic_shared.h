#pragma once

#include <cstddef>

namespace ziggurat::emulation {

inline constexpr size_t kMaxDynamicShared = 227 * 1024;  // of a block, where the kernel's attribute allows it
inline constexpr size_t kDefaultDynamicShared = 48 * 1024;  // without
const void* dynamic_shared_memory();                        // the calling thread's

}  // namespace ziggurat::emulation
