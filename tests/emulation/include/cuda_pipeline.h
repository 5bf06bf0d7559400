// CUDA's asynchronous copies from device to shared memory, as far as kernels/cuda uses them. A copy is done
// when its thread waits for it, and no sooner: what is read before was not there.
#pragma once

#include <cuda_runtime.h>

// The last `zeros` of the bytes are not read but zero: all of them or none.
inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0,
                                    ZIGGURAT_SITE) {
  ziggurat::emulation::async_copy(to, from, bytes, zeros, {file, line});
}
inline void __pipeline_commit() { ziggurat::emulation::async_commit(); }
// For all but the last `groups` that this thread has committed.
inline void __pipeline_wait_prior(size_t groups) { ziggurat::emulation::async_wait(groups); }
