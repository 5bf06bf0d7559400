// CUDA's runtime on the emulated device: captures, and graphs of what they recorded.
#include <set>

#include "tests/emulation/queues.h"

using namespace ziggurat::emulation;

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
