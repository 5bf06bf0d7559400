#include "tests/emulation/dynamic_shared.h"

#include <kernels/cuda/device/dynamic_shared.h>

namespace ziggurat::kernels {
// What kernels declare `extern __shared__`: as large as a block's may be. The launch's size is what they may
// touch.
alignas(128) thread_local unsigned char dynamic_shared_bytes[emulation::kMaxDynamicShared];
}  // namespace ziggurat::kernels

namespace ziggurat::emulation {
const void* dynamic_shared_memory() { return kernels::dynamic_shared_bytes; }
}  // namespace ziggurat::emulation
