// The GPUs of this machine, by the CUDA runtime, which starts nothing on them for these questions.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <ziggurat/runtime/gpus.h>

namespace ziggurat {

namespace {

std::string version_text(int number) {  // 13000: 13.0
  return number == 0 ? "" : fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

// What a user can do about it.
std::string cure_of(cudaError_t error, const std::string& driver) {
  if (error == cudaErrorInsufficientDriver) {
    return fmt::format("{} CUDA {}, or use device=cpu",
                       driver.empty() ? "install NVIDIA's driver, one for"
                                      : "the driver is for CUDA " + driver + ": install one for",
                       version_text(CUDART_VERSION));
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    return "in a container give it the GPUs (docker --gpus all), in a job ask for them (srun --gpus), look "
           "at CUDA_VISIBLE_DEVICES; or use device=cpu";
  }
  return "nvidia-smi may say more; or use device=cpu";
}

}  // namespace

Gpus look_for_gpus() {
  Gpus found;
  found.built_for = built_for_gpus();
  int version = 0, count = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess) found.driver = version_text(version);
  const auto fail_with = [&](cudaError_t error) {
    found.problem = error == cudaSuccess ? "no GPU is there"
                                         : fmt::format("no GPU can be used here ({}: {})",
                                                       cudaGetErrorName(error), cudaGetErrorString(error));
    found.cure = cure_of(error, found.driver);
    found.all.clear();
    static_cast<void>(cudaGetLastError());  // it is said
    return found;
  };
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess || count == 0) return fail_with(counted);
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    const cudaError_t error = cudaGetDeviceProperties(&properties, i);
    if (error != cudaSuccess) return fail_with(error);
    found.all.push_back({properties.name, properties.major, properties.minor,
                         static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return found;
}

std::string built_for_gpus() { return ZIGGURAT_GPU_ARCHITECTURES; }
std::string gpu_libraries() {
  return fmt::format("CUDA {}{}", version_text(CUDART_VERSION), ZIGGURAT_LIBRARIES_TEXT);
}

}  // namespace ziggurat
