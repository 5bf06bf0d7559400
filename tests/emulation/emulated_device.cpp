#include "tests/emulation/emulated_device.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <vector>

#include <cuda_runtime.h>
#include <fmt/format.h>

#include "tests/emulation/block.h"
#include "tests/emulation/device_memory.h"
#include "tests/emulation/dynamic_shared.h"

using ziggurat::emulation::DeviceMemory;

namespace {

// That a piece of work is done. Owned by whoever refers to it: an event may be destroyed while a stream waits
// for it.
struct Mark {
  bool done = false;
  std::chrono::steady_clock::time_point when;
};
using MarkPointer = std::shared_ptr<Mark>;

struct Work {
  std::function<void()> run;       // null: an event, or a wait for one
  std::vector<MarkPointer> after;  // beside the work before it in its stream
  bool on_host = false;            // a function of the host's, which may not touch the device's memory
  MarkPointer mark = std::make_shared<Mark>();

  bool may_run() const {
    return std::all_of(after.begin(), after.end(), [](const MarkPointer& m) { return m->done; });
  }
};

}  // namespace

struct CUstream_st {
  std::deque<Work> queue;
  bool waits_for_default = true;  // and the default stream for it
  bool destroyed = false;         // its work still runs
};

struct CUevent_st {
  MarkPointer mark;  // of the latest record; null: none yet, which counts as done
  bool timed = true;
};

namespace ziggurat::emulation {

namespace {

class EmulatedDevice {
 public:
  EmulatedDevice() {
    catch_memory_faults();
    reset(default_seed());
  }

  void reset(uint64_t seed) {
    streams_.clear();
    streams_.push_back(std::make_unique<CUstream_st>());
    events_.clear();
    counts_.clear();
    max_shared_.clear();
    DeviceMemory::instance().free_all();
    for (const Range& range : pinned_) std::free(reinterpret_cast<void*>(range.begin));
    pinned_.clear();
    random_.seed(seed);
    sticky_ = last_ = cudaSuccess;
    message_.clear();
  }

  // A call that fails without harm: reported once more by cudaGetLastError.
  cudaError_t refuse(cudaError_t error, const std::string& why) {
    last_ = error;
    message_ = why;
    message_of_ = error;
    return error;
  }

  CUstream_st* stream(cudaStream_t handle) {
    if (handle == nullptr) return streams_.front().get();
    const auto it =
        std::find_if(streams_.begin(), streams_.end(), [&](const auto& s) { return s.get() == handle; });
    return it == streams_.end() || handle->destroyed ? nullptr : it->get();
  }
  bool known(cudaEvent_t event) const {
    return std::any_of(events_.begin(), events_.end(), [&](const auto& e) { return e.get() == event; });
  }

  MarkPointer enqueue(CUstream_st& to, std::function<void()> run, std::vector<MarkPointer> after = {}) {
    // Work of the default stream comes after all earlier work of the others, and before all their later.
    CUstream_st& default_stream = *streams_.front();
    if (&to == &default_stream) {
      for (const auto& other : streams_) {
        if (other.get() != &to && other->waits_for_default && !other->queue.empty()) {
          after.push_back(other->queue.back().mark);
        }
      }
    } else if (to.waits_for_default && !default_stream.queue.empty()) {
      after.push_back(default_stream.queue.back().mark);
    }
    to.queue.push_back({.run = std::move(run), .after = std::move(after)});
    return to.queue.back().mark;
  }

  cudaError_t wait_for(const MarkPointer& mark) {
    while (!mark->done && sticky_ == cudaSuccess) run_something();
    return sticky_;
  }
  cudaError_t wait_for(CUstream_st& stream) {
    return stream.queue.empty() ? sticky_ : wait_for(MarkPointer(stream.queue.back().mark));
  }
  cudaError_t wait_for_all() {
    while (pending() > 0 && sticky_ == cudaSuccess) run_something();
    return sticky_;
  }
  void run_now_and_then() {
    if (pending() > 0 && sticky_ == cudaSuccess && random_() % 2 == 0) run_something();
  }
  int64_t pending() const {
    size_t sum = 0;
    for (const auto& s : streams_) sum += s->queue.size();
    return static_cast<int64_t>(sum);
  }

  void launch(const Launch& launch) { run_kernel(launch, random_, counts_[launch.name], pinned_); }

  std::mutex mutex_;
  std::vector<std::unique_ptr<CUstream_st>> streams_;  // the first is the default one
  std::vector<std::unique_ptr<CUevent_st>> events_;
  std::map<std::string, KernelCounts> counts_;
  std::map<const void*, size_t> max_shared_;  // of a kernel, where its attribute was set
  std::vector<Range> pinned_;
  Random random_;
  cudaError_t sticky_ = cudaSuccess;  // of a kernel: stays
  cudaError_t last_ = cudaSuccess;
  std::string message_;
  cudaError_t message_of_ = cudaSuccess;  // the error that it explains

 private:
  // One piece of work, drawn among those that may run. There always is one: whatever work waits for was
  // queued before it.
  void run_something() {
    std::vector<CUstream_st*> able;
    for (const auto& s : streams_) {
      if (!s->queue.empty() && s->queue.front().may_run()) able.push_back(s.get());
    }
    CUstream_st& chosen = *able[random_() % able.size()];
    const Work work = std::move(chosen.queue.front());
    chosen.queue.pop_front();
    if (work.run) run(work);
    work.mark->done = true;
    work.mark->when = std::chrono::steady_clock::now();
    std::erase_if(streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
  }

  void run(const Work& work) {
    DeviceMemory& memory = DeviceMemory::instance();
    try {
      if (work.on_host) return work.run();
      const DeviceMemory::Open open;
      work.run();
    } catch (const std::exception& e) {
      fail(cudaErrorLaunchFailure, e.what());
    }
    if (memory.closing_error() && sticky_ == cudaSuccess) {
      fail(cudaErrorIllegalAddress, "the emulator could not close its device memory to the host again");
    }
  }

  void fail(cudaError_t error, const std::string& message) {
    sticky_ = error;
    message_ = message;
    message_of_ = error;
    for (const auto& s : streams_) {
      for (const Work& work : s->queue) work.mark->done = true;
      s->queue.clear();
    }
  }
};

EmulatedDevice& device() {
  static EmulatedDevice* the_device = new EmulatedDevice;
  return *the_device;
}

// One call of the runtime at a time. An error that stays is the answer to all of them.
template <class F>
cudaError_t call(const F& function) {
  const std::lock_guard lock(device().mutex_);
  if (device().sticky_ != cudaSuccess) return device().sticky_;
  return function(device());
}

// call(function(device, stream)) with a stream that exists.
template <class F>
cudaError_t call_on(cudaStream_t handle, const char* name, const F& function) {
  return call([&](EmulatedDevice& d) {
    CUstream_st* stream = d.stream(handle);
    if (stream == nullptr) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      fmt::format("{}: a stream that was destroyed or never made", name));
    }
    return function(d, *stream);
  });
}
template <class F>
cudaError_t call_with(cudaEvent_t event, const char* name, const F& function) {
  return call([&](EmulatedDevice& d) {
    if (!d.known(event)) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      fmt::format("{}: an event that was destroyed or never made", name));
    }
    return function(d);
  });
}

bool is_device(const void* pointer) {
  return DeviceMemory::instance().holds(reinterpret_cast<uintptr_t>(pointer));
}
bool is_live(const void* pointer, size_t bytes) {
  return DeviceMemory::instance().allows(reinterpret_cast<uintptr_t>(pointer), bytes);
}
bool is_pinned(const EmulatedDevice& d, const void* pointer) {
  return std::any_of(d.pinned_.begin(), d.pinned_.end(),
                     [&](const Range& r) { return r.holds(reinterpret_cast<uintptr_t>(pointer)); });
}

// Why memory cannot be copied, or nothing.
std::string refuse_copy(const char* name, const void* to, const void* from, size_t bytes,
                        cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyDefault
                             ? is_device(to)
                             : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDefault
                               ? is_device(from)
                               : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  for (const auto& [pointer, device_side] : {std::pair{to, to_device}, std::pair{from, from_device}}) {
    if (is_device(pointer) != device_side) {
      return fmt::format("{}: {:#x} is {}memory of the device, against its kind of copy", name,
                         reinterpret_cast<uintptr_t>(pointer), device_side ? "no " : "");
    }
    if (device_side && !is_live(pointer, bytes)) {
      return fmt::format("{}: {} bytes at {}", name, bytes,
                         DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(pointer)));
    }
  }
  return "";
}

// Memory that was freed while the copy waited in its queue is found when it runs.
void copy_now(void* to, const void* from, size_t bytes) {
  for (const void* pointer : {static_cast<const void*>(to), from}) {
    if (is_device(pointer) && !is_live(pointer, bytes)) {
      throw KernelError(fmt::format("a copy of {} bytes: {}", bytes,
                                    DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(pointer))));
    }
  }
  std::memmove(to, from, bytes);
}

cudaError_t copy(EmulatedDevice& d, CUstream_st& stream, const char* name, void* to, const void* from,
                 size_t bytes, cudaMemcpyKind kind) {
  const std::string why = refuse_copy(name, to, from, bytes, kind);
  if (!why.empty()) return d.refuse(cudaErrorInvalidValue, why);
  if (bytes == 0) return cudaSuccess;
  if (!is_device(from) && !is_pinned(d, from)) {
    // Ordinary memory of the host is taken at once, and may be used again.
    const auto taken = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                           static_cast<const char*>(from) + bytes);
    d.enqueue(stream, [=] { copy_now(to, taken->data(), bytes); });
    return cudaSuccess;
  }
  const MarkPointer done = d.enqueue(stream, [=] { copy_now(to, from, bytes); });
  const bool to_ordinary_memory = !is_device(to) && !is_pinned(d, to);
  return to_ordinary_memory ? d.wait_for(done) : cudaSuccess;
}

}  // namespace

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

}  // namespace ziggurat::emulation

// The runtime's functions
// ----------------------------------------------------------------------------------------------

using namespace ziggurat::emulation;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "an unknown error";
}
const char* cudaGetErrorString(cudaError_t error) {
  EmulatedDevice& d = device();
  return error != cudaSuccess && error == d.message_of_ ? d.message_.c_str() : cudaGetErrorName(error);
}
cudaError_t cudaPeekAtLastError() {
  return call([](EmulatedDevice& d) { return d.last_; });
}
cudaError_t cudaGetLastError() {
  return call([](EmulatedDevice& d) { return std::exchange(d.last_, cudaSuccess); });
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device_index) {
  *device_index = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device_index) {
  return device_index == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 2;  // few, so that loops over a grid go round in tests
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kMaxDynamicShared);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaDeviceSynchronize() {
  return call([](EmulatedDevice& d) { return d.wait_for_all(); });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call([&](EmulatedDevice&) {
    *total = size_t{1} << 31;
    *free = *total - DeviceMemory::instance().live_bytes();
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call([&](EmulatedDevice& d) {
    *pointer = bytes == 0 ? nullptr : DeviceMemory::instance().allocate(bytes);
    if (bytes > 0 && *pointer == nullptr) {
      return d.refuse(cudaErrorMemoryAllocation,
                      fmt::format("cudaMalloc: {} bytes: the emulated device has 2 GiB", bytes));
    }
    return cudaSuccess;
  });
}
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  // Also after a kernel's error, so that owners of memory can let it go.
  const std::lock_guard lock(device().mutex_);
  const bool freed = DeviceMemory::instance().free(pointer);
  if (device().sticky_ != cudaSuccess) return device().sticky_;
  return freed ? cudaSuccess
               : device().refuse(cudaErrorInvalidValue, "cudaFree: memory that was freed or never allocated");
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  return call_on(handle, "cudaFreeAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (!is_live(pointer, 0))
      return d.refuse(cudaErrorInvalidValue, "cudaFreeAsync: memory that was freed or never allocated");
    d.enqueue(stream, [=] { DeviceMemory::instance().free(pointer); });
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return call([&](EmulatedDevice& d) {
    *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*pointer == nullptr) return d.refuse(cudaErrorMemoryAllocation, "cudaMallocHost");
    std::memset(*pointer, 0xff, bytes);
    d.pinned_.push_back({reinterpret_cast<uintptr_t>(*pointer), bytes});
    return cudaSuccess;
  });
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard lock(device().mutex_);
  const auto begin = reinterpret_cast<uintptr_t>(pointer);
  if (std::erase_if(device().pinned_, [&](const Range& r) { return r.begin == begin; }) == 0) {
    return device().refuse(cudaErrorInvalidValue, "cudaFreeHost: memory that was freed or never allocated");
  }
  std::free(pointer);
  return device().sticky_;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  return call_on(handle, "cudaMemcpyAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    return copy(d, stream, "cudaMemcpyAsync", to, from, bytes, kind);
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call_on(nullptr, "cudaMemcpy", [&](EmulatedDevice& d, CUstream_st& stream) {
    const cudaError_t error = copy(d, stream, "cudaMemcpy", to, from, bytes, kind);
    return error == cudaSuccess ? d.wait_for(stream) : error;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
  return call_on(handle, "cudaMemsetAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (bytes == 0) return cudaSuccess;
    if (!is_device(to) || !is_live(to, bytes)) {
      return d.refuse(cudaErrorInvalidValue,
                      fmt::format("cudaMemset: {} bytes at {}", bytes,
                                  DeviceMemory::instance().describe(reinterpret_cast<uintptr_t>(to))));
    }
    d.enqueue(stream, [=] {
      if (!is_live(to, bytes)) throw KernelError("cudaMemset of memory that was freed");
      std::memset(to, value, bytes);
    });
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return call([&](EmulatedDevice& d) {
    d.streams_.push_back(std::make_unique<CUstream_st>());
    *handle = d.streams_.back().get();
    (*handle)->waits_for_default = flags != cudaStreamNonBlocking;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* handle) {
  return cudaStreamCreateWithFlags(handle, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return call_on(handle, "cudaStreamDestroy", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (handle == nullptr)
      return d.refuse(cudaErrorInvalidResourceHandle, "cudaStreamDestroy: the default stream");
    stream.destroyed = true;
    std::erase_if(d.streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call_on(handle, "cudaStreamSynchronize",
                 [](EmulatedDevice& d, CUstream_st& stream) { return d.wait_for(stream); });
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return call_on(handle, "cudaStreamQuery", [](EmulatedDevice& d, CUstream_st& stream) {
    d.run_now_and_then();
    if (d.sticky_ != cudaSuccess) return d.sticky_;
    return stream.queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return call_with(event, "cudaStreamWaitEvent", [&](EmulatedDevice& d) {
    CUstream_st* stream = d.stream(handle);
    if (stream == nullptr) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      "cudaStreamWaitEvent: a stream that was destroyed or never made");
    }
    // What was recorded last until now: a later record does not count.
    if (event->mark != nullptr) d.enqueue(*stream, nullptr, {event->mark});
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, void (*function)(void*), void* data) {
  return call_on(handle, "cudaLaunchHostFunc", [&](EmulatedDevice& d, CUstream_st& stream) {
    d.enqueue(stream, [=] { function(data); });
    stream.queue.back().on_host = true;
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&](EmulatedDevice& d) {
    d.events_.push_back(std::make_unique<CUevent_st>());
    *event = d.events_.back().get();
    (*event)->timed = flags != cudaEventDisableTiming;
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call_with(event, "cudaEventDestroy", [&](EmulatedDevice& d) {
    std::erase_if(d.events_, [&](const auto& e) { return e.get() == event; });
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return call_with(event, "cudaEventRecord", [&](EmulatedDevice& d) {
    CUstream_st* stream = d.stream(handle);
    if (stream == nullptr) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      "cudaEventRecord: a stream that was destroyed or never made");
    }
    event->mark = d.enqueue(*stream, nullptr);
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call_with(event, "cudaEventSynchronize", [&](EmulatedDevice& d) {
    return event->mark == nullptr ? cudaSuccess : d.wait_for(MarkPointer(event->mark));
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call_with(event, "cudaEventQuery", [&](EmulatedDevice& d) {
    if (event->mark == nullptr) return cudaSuccess;
    const MarkPointer mark = event->mark;
    if (!mark->done) d.run_now_and_then();
    if (d.sticky_ != cudaSuccess) return d.sticky_;
    return mark->done ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return call_with(begin, "cudaEventElapsedTime", [&](EmulatedDevice& d) {
    if (!d.known(end) || !begin->timed || !end->timed || begin->mark == nullptr || end->mark == nullptr) {
      return d.refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime: two recorded events with times");
    }
    if (!begin->mark->done || !end->mark->done) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->mark->when - begin->mark->when).count();
    return cudaSuccess;
  });
}
