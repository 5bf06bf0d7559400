#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/device_timer.h>

namespace ziggurat {

namespace {
[[noreturn]] void fail_without_device(Device device) {
  fail(ErrorKind::device,
       "this build knows no device '{}': build with -DZIGGURAT_CUDA=ON where the CUDA toolkit is, or use the "
       "CPU",
       to_string(device));
}
}  // namespace

Backend& backend(Device device) { fail_without_device(device); }

DeviceTimer::DeviceTimer() { fail_without_device(Device::cuda); }
DeviceTimer::~DeviceTimer() = default;
void DeviceTimer::start(Stream&) {}
void DeviceTimer::stop(Stream&) {}
double DeviceTimer::seconds() { return 0; }

}  // namespace ziggurat
