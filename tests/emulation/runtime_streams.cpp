// CUDA's runtime on the emulated device: streams and events.
#include "tests/emulation/queues.h"

using namespace ziggurat::emulation;

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
