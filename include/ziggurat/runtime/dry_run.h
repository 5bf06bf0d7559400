#pragma once

namespace ziggurat {

// While it lives, bodies of parallel_for are not called on this thread, no kernel starts on a device, and the
// libraries are not called: kernels take the memory that they need and leave without having touched any. So
// planning is running (Device::meta).
class DryRun {
 public:
  DryRun() : outer_(on_) { on_ = true; }
  ~DryRun() { on_ = outer_; }
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;
  static bool on() { return on_; }

 private:
  inline static thread_local bool on_ = false;
  bool outer_;
};

}  // namespace ziggurat
