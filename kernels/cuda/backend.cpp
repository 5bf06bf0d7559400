#include <cuda_runtime.h>
#include <kernels/cuda/device/launch.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat {

namespace {

using kernels::check_cuda;
using kernels::queue_of;

class Cuda : public Backend {
 public:
  void choose(int number) override {
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), "counting GPUs");
    check_cuda(cudaSetDevice(number % count), "choosing a GPU");
  }

  void* allocate(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // it is said by null
      return nullptr;
    }
    check_cuda(error, "taking device memory");
    return memory;
  }
  void free(void* memory) noexcept override { static_cast<void>(cudaFree(memory)); }
  int64_t free_memory() override {
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "asking for free device memory");
    return static_cast<int64_t>(free);
  }

  void* allocate_host(int64_t bytes) override {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "taking pinned memory of the host");
    return memory;
  }
  void free_host(void* memory) noexcept override { static_cast<void>(cudaFreeHost(memory)); }

  void* make_queue() override {
    cudaStream_t queue = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking), "making a stream");
    return queue;
  }
  void drop_queue(void* queue) noexcept override {
    static_cast<void>(cudaStreamDestroy(static_cast<cudaStream_t>(queue)));
  }
  void* make_event() override {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    return event;
  }
  void drop_event(void* event) noexcept override {
    static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  }
  void record(void* event, Stream& stream) override {
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), queue_of(stream)), "recording an event");
  }
  void wait_for(void* event) override {
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for an event");
  }
  void hold(Stream& stream, void* event) override {
    check_cuda(cudaStreamWaitEvent(queue_of(stream), static_cast<cudaEvent_t>(event), 0),
               "having a stream wait for an event");
  }

  void fill_zero(void* to, int64_t bytes, Stream& stream) override {
    check_cuda(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), queue_of(stream)), "filling device memory");
  }
  void copy(const void* from, void* to, int64_t bytes, Stream& stream) override {
    check_cuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, queue_of(stream)),
               "copying device memory");
  }
  void wait(Stream& stream) override {
    ++device_work().waits;
    check_cuda(cudaStreamSynchronize(queue_of(stream)), "waiting for a stream");
  }
  bool done(Stream& stream) override {
    const cudaError_t state = cudaStreamQuery(queue_of(stream));
    if (state != cudaErrorNotReady) check_cuda(state, "looking at a stream");
    return state == cudaSuccess;
  }

  // Of this thread alone: others, such as those that wait for messages, go on as they like.
  void begin_recording(Stream& stream) override {
    check_cuda(cudaStreamBeginCapture(queue_of(stream), cudaStreamCaptureModeThreadLocal),
               "beginning to record a graph");
  }
  void* end_recording(Stream& stream) override {
    cudaGraph_t recorded = nullptr;
    check_cuda(cudaStreamEndCapture(queue_of(stream), &recorded), "recording a graph");
    cudaGraphExec_t graph = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&graph, recorded, 0);
    static_cast<void>(cudaGraphDestroy(recorded));
    check_cuda(error, "making a graph");
    return graph;
  }
  void give_up_recording(Stream& stream) noexcept override {
    cudaGraph_t recorded = nullptr;
    static_cast<void>(cudaStreamEndCapture(queue_of(stream), &recorded));
    if (recorded != nullptr) static_cast<void>(cudaGraphDestroy(recorded));
    static_cast<void>(cudaGetLastError());  // the error that led here is on its way
  }
  void launch(void* graph, Stream& stream) override {
    check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), queue_of(stream)), "starting a graph");
  }
  void drop_graph(void* graph) noexcept override {
    static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  }
};

}  // namespace

Backend& backend(Device device) {
  check(device == Device::cuda, ErrorKind::internal, "[backend] {} has none", to_string(device));
  static Cuda cuda;
  return cuda;
}

}  // namespace ziggurat
