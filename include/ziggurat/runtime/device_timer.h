// How long a device worked, by its own clock: the host only queues, so its clock tells nothing of that.
#pragma once

#include <cstdint>
#include <functional>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

// Seconds between two places of a stream's work. Errors are Error(device), with the runtime's own words.
class DeviceTimer {
 public:
  // Throws Error(device) where the build has no CUDA.
  DeviceTimer();
  ~DeviceTimer();
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  void start(Stream& stream);
  // Error(internal) if the host waited for the device since start(): the device had nothing to do meanwhile,
  // and the time would tell of the host.
  void stop(Stream& stream);
  double seconds();  // waits until the device has come to stop()

 private:
  void *begin_ = nullptr, *end_ = nullptr;
  int64_t waits_ = 0;  // of the thread at start()
};

// How often fastest_on_device() calls.
struct Repetitions {
  double seconds = 0.02;  // of calls that make one mean, at least, but for 1000 calls
  int means = 10;
};

// Seconds of one call of `body`, which queues work on the stream and does not wait for it: the fastest of
// some means over many calls, after two for warming up.
double fastest_on_device(Stream& stream, const std::function<void()>& body,
                         const Repetitions& repetitions = {});

}  // namespace ziggurat
