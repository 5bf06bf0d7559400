#include <cuda_runtime.h>
#include <kernels/cuda/device/launch.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/device_timer.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat {

namespace {

using kernels::check_cuda;

cudaEvent_t event(void* handle) { return static_cast<cudaEvent_t>(handle); }
void* make_event() {
  cudaEvent_t made = nullptr;
  check_cuda(cudaEventCreateWithFlags(&made, cudaEventDefault), "making an event that keeps the time");
  return made;
}

}  // namespace

DeviceTimer::DeviceTimer() : begin_(make_event()), end_(make_event()) {}
DeviceTimer::~DeviceTimer() {
  static_cast<void>(cudaEventDestroy(event(begin_)));
  static_cast<void>(cudaEventDestroy(event(end_)));
}

void DeviceTimer::start(Stream& stream) {
  waits_ = device_work().waits;
  check_cuda(cudaEventRecord(event(begin_), kernels::queue_of(stream)), "taking the time");
}

void DeviceTimer::stop(Stream& stream) {
  check_cuda(cudaEventRecord(event(end_), kernels::queue_of(stream)), "taking the time");
  check(device_work().waits == waits_, ErrorKind::internal,
        "[device timer] the host waited {} times for the device between start and stop: the time would tell "
        "of the host",
        device_work().waits - waits_);
}

double DeviceTimer::seconds() {
  check_cuda(cudaEventSynchronize(event(end_)), "waiting for the end of what is timed");
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, event(begin_), event(end_)), "reading the time");
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace ziggurat
