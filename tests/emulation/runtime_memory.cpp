// CUDA's runtime on the emulated device: its errors, its attributes, and memory.
#include <cstdlib>
#include <cstring>

#include "tests/emulation/dynamic_shared.h"
#include "tests/emulation/queues.h"

using namespace ziggurat::emulation;

namespace {

// Why memory cannot be copied, or nothing.
std::string refuse_copy(const char* name, const void* to, const void* from, size_t bytes,
                        cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyDefault
                             ? is_device(to)
                             : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDefault
                               ? is_device(from)
                               : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  for (const auto& [pointer, device_side] : {std::pair{to, to_device}, std::pair{from, from_device}}) {
    if (is_device(pointer) != device_side) {
      return fmt::format("{}: {:#x} is {}memory of the device, against its kind of copy", name,
                         reinterpret_cast<uintptr_t>(pointer), device_side ? "no " : "");
    }
    if (device_side && !is_live(pointer, bytes)) {
      return fmt::format("{}: {} bytes at {}", name, bytes,
                         DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(pointer)));
    }
  }
  return "";
}

// Memory that was freed while the copy waited in its queue, or in a graph, is found when it runs.
void copy_now(void* to, const void* from, size_t bytes) {
  for (const void* pointer : {static_cast<const void*>(to), from}) {
    if (is_device(pointer) && !is_live(pointer, bytes)) {
      throw KernelError(fmt::format("a copy of {} bytes: {}", bytes,
                                    DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(pointer))));
    }
  }
  std::memmove(to, from, bytes);
}

cudaError_t copy(EmulatedDevice& d, CUstream_st& stream, const char* name, void* to, const void* from,
                 size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  const std::string why = refuse_copy(name, to, from, bytes, kind);
  if (!why.empty()) return d.refuse(cudaErrorInvalidValue, why);
  if (stream.capture) {
    for (const void* pointer : {static_cast<const void*>(to), from}) {
      if (is_device(pointer) || is_pinned(d, pointer)) continue;
      return d.break_capture(*stream.capture, fmt::format("{} of the host's ordinary memory", name));
    }
    const auto pinned = [&d](const void* p) { return is_device(p) || is_pinned(d, p); };
    d.enqueue(stream, [=] {
      if (!pinned(to) || !pinned(from)) throw KernelError("a graph's copy of pinned memory that was freed");
      copy_now(to, from, bytes);
    });
    return cudaSuccess;
  }
  if (!is_device(from) && !is_pinned(d, from)) {
    // Ordinary memory of the host is taken at once, and may be used again.
    const auto taken = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                           static_cast<const char*>(from) + bytes);
    d.enqueue(stream, [=] { copy_now(to, taken->data(), bytes); });
    return cudaSuccess;
  }
  const MarkPointer done = d.enqueue(stream, [=] { copy_now(to, from, bytes); });
  const bool to_ordinary_memory = !is_device(to) && !is_pinned(d, to);
  return to_ordinary_memory ? d.wait_for(done) : cudaSuccess;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureMerge:
      return "cudaErrorStreamCaptureMerge";
    case cudaErrorStreamCaptureUnmatched:
      return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    case cudaErrorCapturedEvent:
      return "cudaErrorCapturedEvent";
    case cudaErrorStreamCaptureWrongThread:
      return "cudaErrorStreamCaptureWrongThread";
  }
  return "an unknown error";
}
const char* cudaGetErrorString(cudaError_t error) {
  EmulatedDevice& d = device();
  return error != cudaSuccess && error == d.message_of_ ? d.message_.c_str() : cudaGetErrorName(error);
}
cudaError_t cudaPeekAtLastError() {
  return call([](EmulatedDevice& d) { return d.last_; });
}
cudaError_t cudaGetLastError() {
  return call([](EmulatedDevice& d) { return std::exchange(d.last_, cudaSuccess); });
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device_index) {
  *device_index = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device_index) {
  return device_index == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 2;  // few, so that loops over a grid go round in tests
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kMaxDynamicShared);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaDeviceSynchronize() {
  return call_outside_captures("cudaDeviceSynchronize", [](EmulatedDevice& d) { return d.wait_for_all(); });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call([&](EmulatedDevice&) {
    *total = size_t{1} << 31;
    *free = *total - DeviceMemory::instance().live_bytes();
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call_outside_captures("cudaMalloc", [&](EmulatedDevice& d) {
    *pointer = bytes == 0 ? nullptr : DeviceMemory::instance().allocate(bytes);
    if (bytes > 0 && *pointer == nullptr) {
      return d.refuse(cudaErrorMemoryAllocation,
                      fmt::format("cudaMalloc: {} bytes: the emulated device has 2 GiB", bytes));
    }
    return cudaSuccess;
  });
}
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  // Also after a kernel's error, so that owners of memory can let it go.
  const std::lock_guard lock(device().mutex_);
  if (const cudaError_t error = device().refuse_in_capture("cudaFree"); error != cudaSuccess) return error;
  const bool freed = DeviceMemory::instance().free(pointer);
  if (device().sticky_ != cudaSuccess) return device().sticky_;
  return freed ? cudaSuccess
               : device().refuse(cudaErrorInvalidValue, "cudaFree: memory that was freed or never allocated");
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  return call_on(handle, "cudaFreeAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (stream.capture) return d.break_capture(*stream.capture, "cudaFreeAsync");
    if (!is_live(pointer, 0))
      return d.refuse(cudaErrorInvalidValue, "cudaFreeAsync: memory that was freed or never allocated");
    d.enqueue(stream, [=] { DeviceMemory::instance().free(pointer); });
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return call_outside_captures("cudaMallocHost", [&](EmulatedDevice& d) {
    *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*pointer == nullptr) return d.refuse(cudaErrorMemoryAllocation, "cudaMallocHost");
    std::memset(*pointer, 0xff, bytes);
    d.pinned_.push_back({reinterpret_cast<uintptr_t>(*pointer), bytes});
    return cudaSuccess;
  });
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard lock(device().mutex_);
  if (const cudaError_t error = device().refuse_in_capture("cudaFreeHost"); error != cudaSuccess)
    return error;
  const auto begin = reinterpret_cast<uintptr_t>(pointer);
  if (std::erase_if(device().pinned_, [&](const Range& r) { return r.begin == begin; }) == 0) {
    return device().refuse(cudaErrorInvalidValue, "cudaFreeHost: memory that was freed or never allocated");
  }
  std::free(pointer);
  return device().sticky_;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  return call_on(handle, "cudaMemcpyAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    return copy(d, stream, "cudaMemcpyAsync", to, from, bytes, kind);
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call_on(nullptr, "cudaMemcpy", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (const cudaError_t error = d.refuse_in_capture("cudaMemcpy"); error != cudaSuccess) return error;
    const cudaError_t error = copy(d, stream, "cudaMemcpy", to, from, bytes, kind);
    return error == cudaSuccess ? d.wait_for(stream) : error;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
  return call_on(handle, "cudaMemsetAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (bytes == 0) return cudaSuccess;
    if (!is_device(to) || !is_live(to, bytes)) {
      return d.refuse(cudaErrorInvalidValue,
                      fmt::format("cudaMemset: {} bytes at {}", bytes,
                                  DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(to))));
    }
    d.enqueue(stream, [=] {
      if (!is_live(to, bytes)) throw KernelError("cudaMemset of memory that was freed");
      std::memset(to, value, bytes);
    });
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
