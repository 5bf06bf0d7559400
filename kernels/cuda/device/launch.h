// The only way by which kernels start, and what a call of the CUDA runtime that fails becomes.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

// Error (device), with `what` and the runtime's own words. Not inline: nvcc need not read what formats
// messages.
[[noreturn]] void fail_cuda(cudaError_t error, const char* what);
// The same of CUTLASS, whose words are `status`.
[[noreturn]] void fail_cutlass(const char* what, const char* status);
inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail_cuda(error, what);
}

inline cudaStream_t queue_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

// Blocks of `block` elements that cover n; none for none.
inline unsigned blocks_for(int64_t n, int64_t block) {
  return static_cast<unsigned>((n + block - 1) / block);
}

// kernel<<<grid, block, shared, stream>>>(arguments...), where a grid of no blocks is no launch. More shared
// memory than 48 KiB has to be asked for by kernel, which is done here.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Stream& stream,
            const std::type_identity_t<Parameters>&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (DryRun::on()) {
    ++device_work().planned;
    return;
  }
  ++device_work().launches;
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared > kWithoutAsking) {
    check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "asking for shared memory");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = queue_of(stream);
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "starting a kernel");
}

}  // namespace ziggurat::kernels
