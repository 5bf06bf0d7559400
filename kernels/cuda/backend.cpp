#include <cuda_runtime.h>
#include <kernels/cuda/device/launch.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat {

namespace {

using kernels::check_cuda;
using kernels::queue_of;

class Cuda : public Backend {
 public:
  void* allocate(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // it is said by null
      return nullptr;
    }
    check_cuda(error, "taking device memory");
    return memory;
  }
  void free(void* memory) noexcept override { static_cast<void>(cudaFree(memory)); }
  int64_t free_memory() override {
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "asking for free device memory");
    return static_cast<int64_t>(free);
  }

  void fill_zero(void* to, int64_t bytes, Stream& stream) override {
    check_cuda(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), queue_of(stream)), "filling device memory");
  }
  void copy(const void* from, void* to, int64_t bytes, Stream& stream) override {
    check_cuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, queue_of(stream)),
               "copying device memory");
  }
  void wait(Stream& stream) override {
    check_cuda(cudaStreamSynchronize(queue_of(stream)), "waiting for a stream");
  }
};

}  // namespace

Backend& backend(Device device) {
  check(device == Device::cuda, ErrorKind::internal, "[backend] {} has none", to_string(device));
  static Cuda cuda;
  return cuda;
}

}  // namespace ziggurat
