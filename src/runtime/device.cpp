// Owners of what a device's runtime hands out. Where work runs at once there is nothing to own.
#include <cstddef>
#include <new>

#include <ziggurat/runtime/backend.h>

namespace ziggurat {

Stream::Stream(Device device, Reproducible reproducible) : device_(device), reproducible_(reproducible) {
  if (device_ == Device::cuda) handle_ = backend(device_).make_queue();
}
Stream::~Stream() {
  if (handle_ != nullptr) backend(device_).drop_queue(handle_);
}
void Stream::wait() {
  if (handle_ != nullptr) backend(device_).wait(*this);
}

Event::Event(Device device) : device_(device) {
  if (device_ == Device::cuda) handle_ = backend(device_).make_event();
}
Event::~Event() {
  if (handle_ != nullptr) backend(device_).drop_event(handle_);
}
void Event::record(Stream& stream) {
  if (handle_ != nullptr) backend(device_).record(handle_, stream);
}
void Event::wait() {
  if (handle_ != nullptr) backend(device_).wait_for(handle_);
}
void Event::hold(Stream& stream) const {
  if (handle_ != nullptr) backend(device_).hold(stream, handle_);
}

HostMemory::HostMemory(Device device, int64_t bytes) : device_(device), bytes_(bytes) {
  data_ = device_ == Device::cuda ? backend(device_).allocate_host(bytes) : new std::byte[size_t(bytes)];
}
HostMemory::~HostMemory() {
  if (data_ == nullptr) return;
  if (device_ == Device::cuda) {
    backend(device_).free_host(data_);
  } else {
    delete[] static_cast<std::byte*>(data_);
  }
}

}  // namespace ziggurat
