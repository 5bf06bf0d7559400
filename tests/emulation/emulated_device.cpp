#include "tests/emulation/emulated_device.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
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
  // Of a graph: queues its part of another meeting.
  std::function<void(CUstream_st& to, std::vector<MarkPointer> after, MarkPointer mark)> meet = {};
  MarkPointer mark = std::make_shared<Mark>();

  bool may_run() const {
    return std::all_of(after.begin(), after.end(), [](const MarkPointer& m) { return m->done; });
  }
};

}  // namespace

// What streams were given between the begin and the end of a capture, by stream: recorded, and not run.
struct Capture {
  struct Part {
    CUstream_st* stream;
    std::deque<Work> work;
  };
  std::vector<Part> parts;  // the first is of the stream where it began
  std::thread::id thread;   // whose calls must not wait meanwhile
  std::string broken;       // why it comes to nothing
  bool over = false;

  Part& part_of(const CUstream_st* stream) {
    return *std::find_if(parts.begin(), parts.end(), [&](const Part& part) { return part.stream == stream; });
  }
};
using CapturePointer = std::shared_ptr<Capture>;

struct CUstream_st {
  std::deque<Work> queue;
  bool waits_for_default = true;  // and the default stream for it
  bool destroyed = false;         // its work still runs
  CapturePointer capture;         // that it takes part in
};

struct CUevent_st {
  MarkPointer mark;        // of the latest record; null: none yet, which counts as done
  CapturePointer capture;  // in which that was
  bool timed = true;
};

struct CUgraph_st {
  CapturePointer recorded;
};

struct CUgraphExec_st {
  CapturePointer recorded;
  MarkPointer latest;  // the end of its latest launch
};

namespace ziggurat::emulation {

struct Meeting {
  std::vector<MarkPointer> here;  // of each part: that its stream has come to it
  bool over = false;
};

namespace {

// Threads that share the device queue the parts of a meeting: one that waits for longer waits for nobody.
constexpr std::chrono::seconds kPatience(60);

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
    graphs_.clear();
    execs_.clear();
    counts_.clear();
    max_shared_.clear();
    DeviceMemory::instance().free_all();
    for (const Range& range : pinned_) std::free(reinterpret_cast<void*>(range.begin));
    pinned_.clear();
    random_.seed(seed);
    sticky_ = last_ = cudaSuccess;
    message_.clear();
    changed_.notify_all();
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

  MarkPointer enqueue(CUstream_st& to, std::function<void()> run, std::vector<MarkPointer> after = {},
                      MarkPointer mark = std::make_shared<Mark>()) {
    if (to.capture) {
      to.capture->part_of(&to).work.push_back(
          {.run = std::move(run), .after = std::move(after), .mark = std::move(mark)});
      return to.capture->part_of(&to).work.back().mark;
    }
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
    to.queue.push_back({.run = std::move(run), .after = std::move(after), .mark = std::move(mark)});
    changed_.notify_all();
    return to.queue.back().mark;
  }

  cudaError_t wait_for(const MarkPointer& mark) {
    while (!mark->done && sticky_ == cudaSuccess) run_or_wait();
    return sticky_;
  }
  cudaError_t wait_for(CUstream_st& stream) {
    return stream.queue.empty() ? sticky_ : wait_for(MarkPointer(stream.queue.back().mark));
  }
  cudaError_t wait_for_all() {
    while (pending() > 0 && sticky_ == cudaSuccess) run_or_wait();
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

  // The capture that the calling thread began and did not end; null: none.
  CapturePointer capture_of_thread() const {
    for (const auto& s : streams_) {
      if (s->capture && s->capture->thread == std::this_thread::get_id()) return s->capture;
    }
    return nullptr;
  }
  // No call that waits, takes memory or gives it back may come while the thread captures: cudaSuccess, or the
  // error that it is. The capture comes to nothing then.
  cudaError_t refuse_in_capture(const std::string& name) {
    const CapturePointer capture = capture_of_thread();
    return capture ? break_capture(*capture, name) : cudaSuccess;
  }
  cudaError_t break_capture(Capture& capture, const std::string& name) {
    const std::string why = name + ": not while a stream is captured";
    if (capture.broken.empty()) capture.broken = why;
    return refuse(cudaErrorStreamCaptureUnsupported, why);
  }
  // Queues again what was recorded: in `stream` what its first stream was given, the rest in streams of its
  // own.
  void launch(CUgraphExec_st& exec, CUstream_st& stream) {
    if (exec.latest) enqueue(stream, nullptr, {exec.latest});
    std::map<const Mark*, MarkPointer> fresh;
    for (const Capture::Part& part : exec.recorded->parts) {
      for (const Work& work : part.work) fresh[work.mark.get()] = std::make_shared<Mark>();
    }
    for (const Capture::Part& part : exec.recorded->parts) {
      CUstream_st* to = &stream;
      if (&part != exec.recorded->parts.data()) {
        streams_.push_back(std::make_unique<CUstream_st>());
        to = streams_.back().get();
        to->waits_for_default = false, to->destroyed = true;  // gone when it is empty
      }
      for (const Work& work : part.work) {
        std::vector<MarkPointer> after;
        for (const MarkPointer& mark : work.after) after.push_back(fresh.at(mark.get()));
        if (work.meet) {
          work.meet(*to, std::move(after), fresh.at(work.mark.get()));
          continue;
        }
        enqueue(*to, work.run, std::move(after), fresh.at(work.mark.get()));
        to->queue.back().on_host = work.on_host;
      }
    }
    exec.latest = enqueue(stream, nullptr);
  }

  void launch(const Launch& launch) { run_kernel(launch, random_, counts_[launch.name], pinned_); }

  std::mutex mutex_;
  std::condition_variable_any changed_;                // work was queued or done
  std::vector<std::unique_ptr<CUstream_st>> streams_;  // the first is the default one
  std::vector<std::unique_ptr<CUevent_st>> events_;
  std::vector<std::unique_ptr<CUgraph_st>> graphs_;
  std::vector<std::unique_ptr<CUgraphExec_st>> execs_;
  std::map<std::string, KernelCounts> counts_;
  std::map<const void*, size_t> max_shared_;  // of a kernel, where its attribute was set
  std::vector<Range> pinned_;
  Random random_;
  cudaError_t sticky_ = cudaSuccess;  // of a kernel: stays
  cudaError_t last_ = cudaSuccess;
  std::string message_;
  cudaError_t message_of_ = cudaSuccess;  // the error that it explains

 private:
  // There is something to run, unless streams have come to meetings whose other parts are yet to be queued,
  // by threads that need the mutex for it.
  void run_or_wait() {
    if (run_something()) return;
    if (changed_.wait_for(mutex_, kPatience) == std::cv_status::timeout && sticky_ == cudaSuccess) {
      fail(cudaErrorLaunchFailure, "streams wait for a rank that does not queue its part of a collective");
    }
  }

  // One piece of work, drawn among those that may run. False: there is none.
  bool run_something() {
    std::vector<CUstream_st*> able;
    for (const auto& s : streams_) {
      if (!s->queue.empty() && s->queue.front().may_run()) able.push_back(s.get());
    }
    if (able.empty()) return false;
    CUstream_st& chosen = *able[random_() % able.size()];
    const Work work = std::move(chosen.queue.front());
    chosen.queue.pop_front();
    if (work.run) run(work);
    work.mark->done = true;
    work.mark->when = std::chrono::steady_clock::now();
    std::erase_if(streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
    changed_.notify_all();
    return true;
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
    changed_.notify_all();
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
    if (stream->capture && !stream->capture->broken.empty()) {
      return d.refuse(cudaErrorStreamCaptureInvalidated, stream->capture->broken);
    }
    return function(d, *stream);
  });
}
// call(function(device)), unless the thread captures a stream.
template <class F>
cudaError_t call_outside_captures(const char* name, const F& function) {
  return call([&](EmulatedDevice& d) {
    const cudaError_t error = d.refuse_in_capture(name);
    return error == cudaSuccess ? function(d) : error;
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

// Memory that was freed while the copy waited in its queue, or in a graph, is found when it runs.
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
  if (bytes == 0) return cudaSuccess;
  const std::string why = refuse_copy(name, to, from, bytes, kind);
  if (!why.empty()) return d.refuse(cudaErrorInvalidValue, why);
  if (stream.capture) {
    for (const void* pointer : {static_cast<const void*>(to), from}) {
      if (is_device(pointer) || is_pinned(d, pointer)) continue;
      return d.break_capture(*stream.capture, fmt::format("{} of the host's ordinary memory", name));
    }
    const auto pinned = [&d](const void* p) { return is_device(p) || is_pinned(d, p); };
    d.enqueue(stream, [=] {
      if (!pinned(to) || !pinned(from)) throw KernelError("a graph's copy of pinned memory that was freed");
      copy_now(to, from, bytes);
    });
    return cudaSuccess;
  }
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
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureMerge:
      return "cudaErrorStreamCaptureMerge";
    case cudaErrorStreamCaptureUnmatched:
      return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    case cudaErrorCapturedEvent:
      return "cudaErrorCapturedEvent";
    case cudaErrorStreamCaptureWrongThread:
      return "cudaErrorStreamCaptureWrongThread";
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
  return call_outside_captures("cudaDeviceSynchronize", [](EmulatedDevice& d) { return d.wait_for_all(); });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call([&](EmulatedDevice&) {
    *total = size_t{1} << 31;
    *free = *total - DeviceMemory::instance().live_bytes();
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call_outside_captures("cudaMalloc", [&](EmulatedDevice& d) {
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
  if (const cudaError_t error = device().refuse_in_capture("cudaFree"); error != cudaSuccess) return error;
  const bool freed = DeviceMemory::instance().free(pointer);
  if (device().sticky_ != cudaSuccess) return device().sticky_;
  return freed ? cudaSuccess
               : device().refuse(cudaErrorInvalidValue, "cudaFree: memory that was freed or never allocated");
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  return call_on(handle, "cudaFreeAsync", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (stream.capture) return d.break_capture(*stream.capture, "cudaFreeAsync");
    if (!is_live(pointer, 0))
      return d.refuse(cudaErrorInvalidValue, "cudaFreeAsync: memory that was freed or never allocated");
    d.enqueue(stream, [=] { DeviceMemory::instance().free(pointer); });
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return call_outside_captures("cudaMallocHost", [&](EmulatedDevice& d) {
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
  if (const cudaError_t error = device().refuse_in_capture("cudaFreeHost"); error != cudaSuccess)
    return error;
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
    if (const cudaError_t error = d.refuse_in_capture("cudaMemcpy"); error != cudaSuccess) return error;
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
    if (stream.capture) return d.break_capture(*stream.capture, "cudaStreamDestroy");
    stream.destroyed = true;
    std::erase_if(d.streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call_on(handle, "cudaStreamSynchronize", [](EmulatedDevice& d, CUstream_st& stream) {
    const cudaError_t error = d.refuse_in_capture("cudaStreamSynchronize");
    return error == cudaSuccess ? d.wait_for(stream) : error;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return call_on(handle, "cudaStreamQuery", [](EmulatedDevice& d, CUstream_st& stream) {
    if (const cudaError_t error = d.refuse_in_capture("cudaStreamQuery"); error != cudaSuccess) return error;
    d.run_now_and_then();
    if (d.sticky_ != cudaSuccess) return d.sticky_;
    return stream.queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return call_on(handle, "cudaStreamWaitEvent", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (!d.known(event)) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      "cudaStreamWaitEvent: an event that was destroyed or never made");
    }
    if (event->mark == nullptr) return cudaSuccess;
    const CapturePointer& capture = event->capture;
    const auto refuse = [&](cudaError_t error, const char* why) {
      for (const CapturePointer& broken : {capture, stream.capture}) {
        if (broken && broken->broken.empty()) broken->broken = why;
      }
      return d.refuse(error, why);
    };
    if (capture && capture->over) {
      return refuse(cudaErrorCapturedEvent, "cudaStreamWaitEvent: an event of a capture that is over");
    }
    if (stream.capture && !capture) {
      return refuse(
          cudaErrorStreamCaptureIsolation,
          "cudaStreamWaitEvent: a captured stream, for an event that was recorded before the capture");
    }
    if (stream.capture && stream.capture != capture) {
      return refuse(cudaErrorStreamCaptureMerge, "cudaStreamWaitEvent: the event of another capture");
    }
    if (capture && !stream.capture) {  // it takes part from now on
      stream.capture = capture;
      capture->parts.push_back({&stream, {}});
    }
    // What was recorded last until now: a later record does not count.
    d.enqueue(stream, nullptr, {event->mark});
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, void (*function)(void*), void* data) {
  return call_on(handle, "cudaLaunchHostFunc", [&](EmulatedDevice& d, CUstream_st& stream) {
    d.enqueue(stream, [=] { function(data); });
    (stream.capture ? stream.capture->part_of(&stream).work : stream.queue).back().on_host = true;
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
  return call_on(handle, "cudaEventRecord", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (!d.known(event)) {
      return d.refuse(cudaErrorInvalidResourceHandle,
                      "cudaEventRecord: an event that was destroyed or never made");
    }
    event->mark = d.enqueue(stream, nullptr);
    event->capture = stream.capture;
    return cudaSuccess;
  });
}
// The host cannot wait for what is only recorded.
static cudaError_t refuse_captured(EmulatedDevice& d, cudaEvent_t event, const char* name) {
  if (const cudaError_t error = d.refuse_in_capture(name); error != cudaSuccess) return error;
  if (!event->capture) return cudaSuccess;
  return d.refuse(cudaErrorCapturedEvent, fmt::format("{}: an event that was recorded in a capture", name));
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call_with(event, "cudaEventSynchronize", [&](EmulatedDevice& d) {
    const cudaError_t error = refuse_captured(d, event, "cudaEventSynchronize");
    if (error != cudaSuccess) return error;
    return event->mark == nullptr ? cudaSuccess : d.wait_for(MarkPointer(event->mark));
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call_with(event, "cudaEventQuery", [&](EmulatedDevice& d) {
    const cudaError_t error = refuse_captured(d, event, "cudaEventQuery");
    if (error != cudaSuccess) return error;
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

namespace {

// Whether the last work of each stream that joined comes before the end of the first.
bool all_joined(const Capture& capture) {
  std::set<const Mark*> before_end;
  std::vector<const Mark*> open;
  const auto add = [&](const Mark* mark) {
    if (before_end.insert(mark).second) open.push_back(mark);
  };
  const auto add_up_to = [&](const Capture::Part& part, const Mark* last) {
    for (const Work& work : part.work) {
      for (const MarkPointer& mark : work.after) add(mark.get());
      before_end.insert(work.mark.get());
      if (work.mark.get() == last) break;
    }
  };
  if (!capture.parts.front().work.empty()) {
    add_up_to(capture.parts.front(), capture.parts.front().work.back().mark.get());
  }
  while (!open.empty()) {
    const Mark* const mark = open.back();
    open.pop_back();
    for (const Capture::Part& part : capture.parts) {
      const bool here = std::any_of(part.work.begin(), part.work.end(),
                                    [&](const Work& work) { return work.mark.get() == mark; });
      if (here) add_up_to(part, mark);
    }
  }
  return std::all_of(capture.parts.begin(), capture.parts.end(), [&](const Capture::Part& part) {
    return part.work.empty() || before_end.contains(part.work.back().mark.get());
  });
}

// call(function(device, *graph)) for one of those that there are.
template <class Owned, class F>
cudaError_t call_with_graph(std::vector<std::unique_ptr<Owned>> EmulatedDevice::*all, Owned* graph,
                            const char* name, const F& function) {
  return call([&](EmulatedDevice& d) {
    const bool known =
        std::any_of((d.*all).begin(), (d.*all).end(), [&](const auto& g) { return g.get() == graph; });
    if (!known) {
      return d.refuse(cudaErrorInvalidValue,
                      fmt::format("{}: a graph that was destroyed or never made", name));
    }
    return function(d, *graph);
  });
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  return call_on(handle, "cudaStreamBeginCapture", [&](EmulatedDevice& d, CUstream_st& stream) {
    if (stream.capture) return d.break_capture(*stream.capture, "cudaStreamBeginCapture");
    if (const cudaError_t error = d.refuse_in_capture("cudaStreamBeginCapture"); error != cudaSuccess) {
      return error;
    }
    if (stream.waits_for_default) {
      return d.refuse(cudaErrorStreamCaptureUnsupported,
                      "cudaStreamBeginCapture: the default stream, or one that waits for it");
    }
    stream.capture = std::make_shared<Capture>();
    stream.capture->parts.push_back({&stream, {}});
    stream.capture->thread = std::this_thread::get_id();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  return call([&](EmulatedDevice& d) {
    CUstream_st* const stream = d.stream(handle);
    if (stream == nullptr || !stream->capture || stream->capture->parts.front().stream != stream) {
      return d.refuse(cudaErrorStreamCaptureUnmatched,
                      "cudaStreamEndCapture: a stream where no capture began");
    }
    const CapturePointer capture = stream->capture;
    if (capture->thread != std::this_thread::get_id()) {
      return d.refuse(cudaErrorStreamCaptureWrongThread, "cudaStreamEndCapture: another thread began it");
    }
    capture->over = true;
    for (const Capture::Part& part : capture->parts) part.stream->capture = nullptr;
    if (!capture->broken.empty()) return d.refuse(cudaErrorStreamCaptureInvalidated, capture->broken);
    if (!all_joined(*capture)) {
      return d.refuse(cudaErrorStreamCaptureUnjoined,
                      "cudaStreamEndCapture: work of a stream that joined is not waited for");
    }
    d.graphs_.push_back(std::make_unique<CUgraph_st>(CUgraph_st{capture}));
    *graph = d.graphs_.back().get();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call_with_graph(
      &EmulatedDevice::graphs_, graph, "cudaGraphInstantiate", [&](EmulatedDevice& d, CUgraph_st& g) {
        d.execs_.push_back(std::make_unique<CUgraphExec_st>(CUgraphExec_st{g.recorded, {}}));
        *exec = d.execs_.back().get();
        return cudaSuccess;
      });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  return call_with_graph(&EmulatedDevice::execs_, exec, "cudaGraphLaunch",
                         [&](EmulatedDevice& d, CUgraphExec_st& e) {
                           CUstream_st* const stream = d.stream(handle);
                           if (stream == nullptr) {
                             return d.refuse(cudaErrorInvalidResourceHandle,
                                             "cudaGraphLaunch: a stream that was destroyed or never made");
                           }
                           if (stream->capture) return d.break_capture(*stream->capture, "cudaGraphLaunch");
                           d.launch(e, *stream);
                           return cudaSuccess;
                         });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call_with_graph(&EmulatedDevice::graphs_, graph, "cudaGraphDestroy",
                         [&](EmulatedDevice& d, CUgraph_st&) {
                           std::erase_if(d.graphs_, [&](const auto& g) { return g.get() == graph; });
                           return cudaSuccess;
                         });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call_with_graph(&EmulatedDevice::execs_, exec, "cudaGraphExecDestroy",
                         [&](EmulatedDevice& d, CUgraphExec_st&) {
                           std::erase_if(d.execs_, [&](const auto& e) { return e.get() == exec; });
                           return cudaSuccess;
                         });
}
