// How often a thread of the host turned to a device: a step's launches cost microseconds each, and while the
// host waits it queues nothing.
#pragma once

#include <cstdint>

namespace ziggurat {

struct DeviceWork {
  int64_t launches = 0;  // of kernels, by themselves
  int64_t graphs = 0;    // launches of graphs, each of many kernels
  int64_t waits = 0;     // for a stream to be done
  int64_t planned = 0;   // launches of kernels in dry runs, which launched nothing
};

// Of the calling thread, since it began.
inline DeviceWork& device_work() {
  static thread_local DeviceWork work;
  return work;
}

}  // namespace ziggurat
