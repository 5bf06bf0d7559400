// Collectives between the memories of devices, by a library that knows their links: NCCL's in a build for
// GPUs (kernels/cuda/lib/nccl.cpp), none without it (libraries/nccl_absent.cpp), queues that meet on the
// emulated device (tests/emulation/lib). Communicator calls it, and names the collective where it fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

// A group of ranks, each with a device of its own. Collectives are queued on the stream, one of the device
// that the thread had chosen when the group was made, and all ranks queue the same ones in the same order.
// Counts may be zero. Errors are Error(communication), with the library's own words.
class DeviceGroup {
 public:
  // What ranks find each other by: made by one of them, and brought to the others by some other way.
  using Id = std::array<std::byte, 128>;
  enum class Number : uint8_t { i32, f32, f64 };
  enum class Reduce : uint8_t { sum, max };

  virtual ~DeviceGroup() = default;

  virtual void broadcast(void* buffer, int64_t bytes, int root, Stream& stream) = 0;
  virtual void all_reduce(void* buffer, int64_t count, Number type, Reduce op, Stream& stream) = 0;
  // `bytes` of each rank; input may be this rank's block of output.
  virtual void all_gather(const void* input, void* output, int64_t bytes, Stream& stream) = 0;
  // `count` numbers for each rank; output may be this rank's block of input.
  virtual void sum_scatter(const void* input, void* output, int64_t count, Number type, Stream& stream) = 0;
  // Bytes to and from each rank, whose blocks lie one behind the other.
  virtual void all_to_all(const void* input, std::span<const int64_t> send, void* output,
                          std::span<const int64_t> receive, Stream& stream) = 0;

  // What went wrong since in a collective that was queued, or "". Does not wait.
  virtual std::string failure() = 0;
  // Streams need not wait for its collectives any more, whose results are lost. Only the destructor may
  // follow.
  virtual void abort() noexcept = 0;
};

// Why there is no such library here, and what to do for one. "": there is.
std::string device_groups_missing();
// Of the device that the calling thread chose: no other one of any node has it.
std::string device_address();
DeviceGroup::Id make_device_group_id();
// Every rank of the group calls it, and may wait for the others.
std::unique_ptr<DeviceGroup> make_device_group(const DeviceGroup::Id& id, int rank, int size);

}  // namespace ziggurat
