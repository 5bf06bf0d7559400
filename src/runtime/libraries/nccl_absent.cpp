#include <ziggurat/core/error.h>
#include <ziggurat/runtime/device_group.h>
#include <ziggurat/runtime/gpus.h>

namespace ziggurat {

std::string device_groups_missing() {
  if (built_for_gpus().empty()) return "this build knows no devices";
  return "this build has no NCCL: install libnccl-dev (or NCCL beside the CUDA toolkit) and configure again";
}
std::string device_address() { fail(ErrorKind::internal, "[device group] {}", device_groups_missing()); }
DeviceGroup::Id make_device_group_id() {
  fail(ErrorKind::internal, "[device group] {}", device_groups_missing());
}
std::unique_ptr<DeviceGroup> make_device_group(const DeviceGroup::Id&, int, int) {
  fail(ErrorKind::internal, "[device group] {}", device_groups_missing());
}

}  // namespace ziggurat
