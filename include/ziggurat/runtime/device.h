// Where memory lives and where work runs.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include <ziggurat/core/span.h>

namespace ziggurat {

// `meta` has shapes but no memory: running a step on it tells what memory the step needs on the CPU
// (`ziggurat plan`). `meta_cuda` is the same of a CUDA device.
enum class Device { cpu, cuda, meta, meta_cuda };

constexpr const char* to_string(Device device) {
  switch (device) {
    case Device::cpu:
      return "cpu";
    case Device::cuda:
      return "cuda";
    case Device::meta:
      return "meta";
    case Device::meta_cuda:
      return "meta of cuda";
  }
  return "unknown";
}

constexpr bool is_meta(Device device) { return device == Device::meta || device == Device::meta_cuda; }
// Whose kernels and memory it is about: a device itself, or the one that a meta device stands for.
constexpr Device planned(Device device) {
  return device == Device::cuda || device == Device::meta_cuda ? Device::cuda : Device::cpu;
}
constexpr Device meta_of(Device device) {
  return planned(device) == Device::cuda ? Device::meta_cuda : Device::meta;
}

// How much the bits of a result may depend on the layout of a run (architecture: the invariance contract).
//   layout  same bits on every run with the same ranks and threads (fast)
//   strict  same bits on any number of ranks and threads
enum class Reproducible { layout, strict };

// What a backend keeps for the work of one stream, of a kind that only it knows.
class StreamCache {
 public:
  virtual ~StreamCache() = default;
  virtual int64_t bytes() const = 0;
};

// An ordered queue of work on a device, and how that work is to be done. On the CPU work runs at once.
class Stream {
 public:
  // Throws Error(device) where the device does not exist.
  explicit Stream(Device device = Device::cpu, Reproducible reproducible = Reproducible::layout);
  // Work that is still queued goes on; what it uses must live until somebody waited for it.
  ~Stream();
  Stream(Stream&& other) noexcept
      : device_(other.device_),
        reproducible_(other.reproducible_),
        handle_(std::exchange(other.handle_, nullptr)),
        profile_(other.profile_),
        weight_rows_(other.weight_rows_),
        cache_(std::move(other.cache_)) {}
  Stream& operator=(Stream&&) = delete;

  Device device() const { return device_; }
  bool strict() const { return reproducible_ == Reproducible::strict; }

  // The device runtime's own queue (cudaStream_t); null where work runs at once.
  void* handle() const { return handle_; }
  // The host waits until all work queued so far is done.
  void wait();

  // Kernels open a span on it: `const Span span(stream.profile(), "gemm");`. Null (the default): no times are
  // kept. The profile must outlive the stream.
  Profile* profile() const { return profile_; }
  void set_profile(Profile* profile) { profile_ = profile; }

  // Rows that each weight is multiplied with before its values change: how much it pays to keep a weight in
  // another order. 0 (the default): nobody knows, so that a backend keeps nothing of weights.
  static constexpr int64_t kAllRows = std::numeric_limits<int64_t>::max();  // they never change
  int64_t weight_rows() const { return weight_rows_; }
  void set_weight_rows(int64_t rows) { weight_rows_ = rows; }
  // Null until the backend has something to keep.
  std::unique_ptr<StreamCache>& cache() { return cache_; }
  int64_t cache_bytes() const { return cache_ ? cache_->bytes() : 0; }

 private:
  Device device_;
  Reproducible reproducible_;
  void* handle_ = nullptr;
  Profile* profile_ = nullptr;
  int64_t weight_rows_ = 0;
  std::unique_ptr<StreamCache> cache_;
};

// A place in a stream's work, for the host or another stream to wait for. On the CPU nothing needs waiting.
class Event {
 public:
  explicit Event(Device device);
  ~Event();
  Event(Event&& other) noexcept : device_(other.device_), handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;

  void record(Stream& stream);      // after all that the stream was given so far
  void wait();                      // by the host; at once if nothing was recorded
  void hold(Stream& stream) const;  // what `stream` is given from now on comes after the recorded place

 private:
  Device device_;
  void* handle_ = nullptr;
};

}  // namespace ziggurat
