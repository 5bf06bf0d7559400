#include "tests/emulation/emulated_device.h"

#include <cstdlib>

#include "tests/emulation/dynamic_shared.h"
#include "tests/emulation/queues.h"

namespace ziggurat::emulation {

EmulatedDevice& device() {
  static EmulatedDevice* the_device = new EmulatedDevice;
  return *the_device;
}

void reset(uint64_t seed) {
  const std::lock_guard lock(device().mutex_);
  device().reset(seed);
}

uint64_t default_seed() {
  const char* text = std::getenv("ZIGGURAT_EMULATION_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

KernelCounts counts(const std::string& kernel) {
  const auto it = device().counts_.find(kernel);
  return it == device().counts_.end() ? KernelCounts{} : it->second;
}
const std::map<std::string, KernelCounts>& all_counts() { return device().counts_; }

int64_t pending_work() { return device().pending(); }
int64_t live_allocations() { return DeviceMemory::instance().live(); }

cudaError_t set_max_dynamic_shared(const void* kernel, int bytes) {
  return call([&](EmulatedDevice& d) {
    if (bytes < 0 || static_cast<size_t>(bytes) > kMaxDynamicShared) {
      return d.refuse(cudaErrorInvalidValue,
                      fmt::format("cudaFuncSetAttribute: {} bytes of shared memory, at most {}", bytes,
                                  kMaxDynamicShared));
    }
    d.max_shared_[kernel] = static_cast<size_t>(bytes);
    return cudaSuccess;
  });
}

cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, const void* kernel,
                           void (*function)(const void* kernel, const void* arguments),
                           std::shared_ptr<const void> arguments, size_t arguments_bytes) {
  return call_on(config.stream, "a launch", [&](EmulatedDevice& d, CUstream_st& stream) {
    const dim3 &grid = config.gridDim, &block = config.blockDim;
    const std::string name = kernel_name(kernel);
    const auto max_shared = d.max_shared_.find(kernel);
    const size_t shared_limit = max_shared == d.max_shared_.end()
                                    ? kDefaultDynamicShared
                                    : std::max(max_shared->second, kDefaultDynamicShared);
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.z > 64) {
      return d.refuse(cudaErrorInvalidConfiguration,
                      fmt::format("{}: a block of {} x {} x {} threads, at most 1024 and 64 in z", name,
                                  block.x, block.y, block.z));
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535) {
      return d.refuse(
          cudaErrorInvalidConfiguration,
          fmt::format("{}: a grid of {} x {} x {} blocks, at least 1 and at most 2^31-1 x 65535 x 65535",
                      name, grid.x, grid.y, grid.z));
    }
    if (config.dynamicSmemBytes > shared_limit) {
      return d.refuse(
          cudaErrorInvalidConfiguration,
          fmt::format("{}: {} bytes of dynamic shared memory, but its limit is {} (cudaFuncSetAttribute)",
                      name, config.dynamicSmemBytes, shared_limit));
    }
    if (arguments_bytes > 4096) {
      return d.refuse(cudaErrorInvalidValue,
                      fmt::format("{}: {} bytes of arguments, at most 4096", name, arguments_bytes));
    }
    Launch launch{name,
                  {grid.x, grid.y, grid.z},
                  {block.x, block.y, block.z},
                  config.dynamicSmemBytes,
                  function,
                  kernel,
                  arguments.get(),
                  arguments_bytes};
    d.enqueue(stream, [launch, arguments, &d] { d.launch(launch); });
    return cudaSuccess;
  });
}

cudaError_t enqueue_library_call(cudaStream_t handle, const std::string& name, std::function<void()> run) {
  return call_on(handle, name.c_str(), [&](EmulatedDevice& d, CUstream_st& stream) {
    d.enqueue(stream, [name, run = std::move(run), &d] {
      ++d.counts_[name].launches;
      run();
    });
    return cudaSuccess;
  });
}

std::shared_ptr<Meeting> make_meeting(int parts) {
  auto meeting = std::make_shared<Meeting>();
  for (int i = 0; i < parts; ++i) meeting->here.push_back(std::make_shared<Mark>());
  return meeting;
}

cudaError_t enqueue_meeting(cudaStream_t handle, int part, const std::string& name,
                            std::function<Met()> meet) {
  const auto join = [part, name](EmulatedDevice& d, CUstream_st& stream, const Met& met,
                                 std::vector<MarkPointer> after, MarkPointer mark) {
    const std::shared_ptr<Meeting> meeting = met.meeting;
    d.enqueue(stream, nullptr, std::move(after), meeting->here[static_cast<size_t>(part)]);
    const auto once = [meeting, name, run = met.run, &d] {
      if (std::exchange(meeting->over, true)) return;
      ++d.counts_[name].launches;
      run();
    };
    d.enqueue(stream, once, meeting->here, std::move(mark));
  };
  bool captured = false;
  const cudaError_t error = call_on(handle, name.c_str(), [&](EmulatedDevice& d, CUstream_st& stream) {
    if (!stream.capture) return cudaSuccess;
    captured = true;
    d.enqueue(stream, nullptr);
    stream.capture->part_of(&stream).work.back().meet =
        [join, meet, &d](CUstream_st& to, std::vector<MarkPointer> after, MarkPointer mark) {
          join(d, to, meet(), std::move(after), std::move(mark));
        };
    return cudaSuccess;
  });
  if (captured || error != cudaSuccess) return error;
  const Met met = meet();  // not under the device's lock: it takes others
  return call_on(handle, name.c_str(), [&](EmulatedDevice& d, CUstream_st& stream) {
    join(d, stream, met, {}, std::make_shared<Mark>());
    return cudaSuccess;
  });
}

void cancel(Meeting& meeting) {
  const std::lock_guard lock(device().mutex_);
  meeting.over = true;
  for (const MarkPointer& mark : meeting.here) mark->done = true;
  device().changed_.notify_all();
}

void check_device_memory(const void* address, int64_t rows, int64_t row_bytes, int64_t row_distance,
                         const std::string& what) {
  if (rows == 0 || row_bytes == 0) return;
  const int64_t bytes = (rows - 1) * row_distance + row_bytes;
  if (!is_device(address) || !is_live(address, static_cast<size_t>(bytes))) {
    throw KernelError(fmt::format("{}: {} bytes at {}", what, bytes,
                                  DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(address))));
  }
}

}  // namespace ziggurat::emulation
