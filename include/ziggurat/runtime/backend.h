// What a device's runtime does beside running kernels: its memory, and the order of work on it. Stream, Event
// (runtime/device.h), HostMemory and Arena own what it hands out.
#pragma once

#include <cstdint>
#include <utility>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

// Errors are Error(device), with the runtime's own words.
class Backend {
 public:
  virtual ~Backend() = default;

  // The calling thread's work goes to that device from now on; there are fewer than numbers, so they start
  // anew.
  virtual void choose(int number) = 0;

  virtual void* allocate(int64_t bytes) = 0;  // null: there is not so much left
  virtual void free(void* memory) noexcept = 0;
  virtual int64_t free_memory() = 0;  // bytes
  // Of the host, where the device's copies reach it without a detour (pinned). Throws where there is none.
  virtual void* allocate_host(int64_t bytes) = 0;
  virtual void free_host(void* memory) noexcept = 0;

  virtual void* make_queue() = 0;
  virtual void drop_queue(void* queue) noexcept = 0;
  virtual void* make_event() = 0;
  virtual void drop_event(void* event) noexcept = 0;
  virtual void record(void* event, Stream& stream) = 0;
  virtual void wait_for(void* event) = 0;              // by the host
  virtual void hold(Stream& stream, void* event) = 0;  // later work of the stream comes after the event

  // In the order of the stream; they may return before it is done. Either side of a copy may be the host's,
  // which must stay as it is until the stream was waited for.
  virtual void fill_zero(void* to, int64_t bytes, Stream& stream) = 0;
  virtual void copy(const void* from, void* to, int64_t bytes, Stream& stream) = 0;
  // Until all work of the stream is done.
  virtual void wait(Stream& stream) = 0;
  virtual bool done(Stream& stream) = 0;  // that it is, without waiting

  // What the calling thread gives the stream from now on is recorded instead of done (runtime/graph.h).
  virtual void begin_recording(Stream& stream) = 0;
  virtual void* end_recording(Stream& stream) = 0;  // a graph
  virtual void give_up_recording(Stream& stream) noexcept = 0;
  virtual void launch(void* graph, Stream& stream) = 0;
  virtual void drop_graph(void* graph) noexcept = 0;  // launches that are queued go on
};

// Of Device::cuda; the CPU needs none. Throws Error(device) where the build has no CUDA.
Backend& backend(Device device);

// Memory of the host that a device copies from and to.
class HostMemory {
 public:
  HostMemory(Device device, int64_t bytes);
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept
      : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  HostMemory& operator=(HostMemory&&) = delete;
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Device device_;
  void* data_;
  int64_t bytes_;
};

}  // namespace ziggurat
