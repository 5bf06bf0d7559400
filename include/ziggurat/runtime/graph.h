// Work of a stream that was recorded once and is queued again as a whole, by one call: for work of many small
// pieces, which a device does faster than the host could queue them one by one.
#pragma once

#include <utility>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

class Graph {
 public:
  Graph() = default;  // of nothing; it cannot be launched
  // Records what queue() gives the stream, and others that events join to it and back, and runs none of it.
  // Kernels keep their arguments, copies their addresses: what is to differ between launches has to lie in
  // memory, and all memory has to stay as long as the graph is launched. Until queue() has returned, this
  // thread may not wait for the device nor take or give back memory of it: Error(device), with the call. Any
  // error leaves the stream as it was. Devices that queue their work only.
  template <class F>
  static Graph record(Stream& stream, const F& queue) {
    Recording recording(stream);
    queue();
    return recording.end();
  }
  ~Graph();
  Graph(Graph&& other) noexcept : device_(other.device_), handle_(std::exchange(other.handle_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  explicit operator bool() const { return handle_ != nullptr; }

  // After what the stream was given so far, and after its own earlier launches.
  void launch(Stream& stream);

 private:
  class Recording {
   public:
    explicit Recording(Stream& stream);
    ~Recording();  // gives up, unless end() was called
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
    Graph end();

   private:
    Stream* stream_;
    int64_t launches_;  // of kernels, counted before
  };

  Graph(Device device, void* handle) : device_(device), handle_(handle) {}
  Device device_ = Device::cpu;
  void* handle_ = nullptr;
};

}  // namespace ziggurat
