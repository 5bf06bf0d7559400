// What a device's runtime does beside running kernels: its memory, and the order of work on it.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

// Errors are Error(device), with the runtime's own words.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual void* allocate(int64_t bytes) = 0;  // null: there is not so much left
  virtual void free(void* memory) noexcept = 0;
  virtual int64_t free_memory() = 0;  // bytes

  // In the order of the stream; they may return before it is done. Either side of a copy may be the host's,
  // which must stay as it is until the stream was waited for.
  virtual void fill_zero(void* to, int64_t bytes, Stream& stream) = 0;
  virtual void copy(const void* from, void* to, int64_t bytes, Stream& stream) = 0;
  // Until all work of the stream is done.
  virtual void wait(Stream& stream) = 0;
};

// Of Device::cuda; the CPU needs none. Throws Error(device) where the build has no CUDA.
Backend& backend(Device device);

}  // namespace ziggurat
