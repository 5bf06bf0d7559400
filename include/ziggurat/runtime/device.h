// Where memory lives and where work runs.
#pragma once

#include <ziggurat/core/span.h>

namespace ziggurat {

// `meta` has shapes but no memory: running a step on it tells what memory the step needs (`ziggurat plan`).
enum class Device { cpu, cuda, meta };

constexpr const char* to_string(Device device) {
  switch (device) {
    case Device::cpu:
      return "cpu";
    case Device::cuda:
      return "cuda";
    case Device::meta:
      return "meta";
  }
  return "unknown";
}

// How much the bits of a result may depend on the layout of a run (architecture: the invariance contract).
//   layout  same bits on every run with the same ranks and threads (fast)
//   strict  same bits on any number of ranks and threads
enum class Reproducible { layout, strict };

// An ordered queue of work on a device, and how that work is to be done. On the CPU work runs at once.
class Stream {
 public:
  explicit Stream(Device device = Device::cpu, Reproducible reproducible = Reproducible::layout)
      : device_(device), reproducible_(reproducible) {}
  Device device() const { return device_; }
  bool strict() const { return reproducible_ == Reproducible::strict; }

  // The device runtime's own queue (cudaStream_t), which is not owned. Null: the CPU, or the device's default
  // queue.
  void* handle() const { return handle_; }
  void set_handle(void* handle) { handle_ = handle; }

  // Kernels open a span on it: `const Span span(stream.profile(), "gemm");`. Null (the default): no times are
  // kept. The profile must outlive the stream.
  Profile* profile() const { return profile_; }
  void set_profile(Profile* profile) { profile_ = profile; }

 private:
  Device device_;
  Reproducible reproducible_;
  void* handle_ = nullptr;
  Profile* profile_ = nullptr;
};

}  // namespace ziggurat
