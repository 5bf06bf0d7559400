// What the emulated device has queued, in which order it may run, and how it does. A call of CUDA's runtime
// is one call() of device().
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime.h>
#include <fmt/format.h>

#include "tests/emulation/block.h"
#include "tests/emulation/device_memory.h"
#include "tests/emulation/emulated_device.h"

namespace ziggurat::emulation {

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

}  // namespace ziggurat::emulation

struct CUstream_st {
  std::deque<ziggurat::emulation::Work> queue;
  bool waits_for_default = true;                // and the default stream for it
  bool destroyed = false;                       // its work still runs
  ziggurat::emulation::CapturePointer capture;  // that it takes part in
};

struct CUevent_st {
  ziggurat::emulation::MarkPointer mark;        // of the latest record; null: none yet, which counts as done
  ziggurat::emulation::CapturePointer capture;  // in which that was
  bool timed = true;
};

struct CUgraph_st {
  ziggurat::emulation::CapturePointer recorded;
};

struct CUgraphExec_st {
  ziggurat::emulation::CapturePointer recorded;
  ziggurat::emulation::MarkPointer latest;  // the end of its latest launch
};

namespace ziggurat::emulation {

struct Meeting {
  std::vector<MarkPointer> here;  // of each part: that its stream has come to it
  bool over = false;
};

// Threads that share the device queue the parts of a meeting: one that waits for longer waits for nobody.
inline constexpr std::chrono::seconds kPatience(60);

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

EmulatedDevice& device();

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

inline bool is_device(const void* pointer) {
  return DeviceMemory::instance().holds(reinterpret_cast<uintptr_t>(pointer));
}
inline bool is_live(const void* pointer, size_t bytes) {
  return DeviceMemory::instance().allows(reinterpret_cast<uintptr_t>(pointer), bytes);
}
inline bool is_pinned(const EmulatedDevice& d, const void* pointer) {
  return std::any_of(d.pinned_.begin(), d.pinned_.end(),
                     [&](const Range& r) { return r.holds(reinterpret_cast<uintptr_t>(pointer)); });
}

}  // namespace ziggurat::emulation
