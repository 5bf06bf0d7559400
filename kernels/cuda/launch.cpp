#include <kernels/cuda/device/launch.h>

#include <ziggurat/core/error.h>

namespace ziggurat::kernels {

void fail_cuda(cudaError_t error, const char* what) {
  fail(ErrorKind::device, "[cuda] {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

void fail_cutlass(const char* what, const char* status) {
  fail(ErrorKind::device, "[cutlass] {}: {}", what, status);
}

}  // namespace ziggurat::kernels
