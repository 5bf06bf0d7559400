// Captures and graphs of the emulated device: what is recorded, what a launch does again, and which calls a
// capture does not survive.
#include <algorithm>
#include <functional>
#include <set>
#include <thread>

#include "tests/emulation/emulator_tests.h"

namespace ziggurat::emulation {
namespace {

__global__ void append(int* log, int value) { log[1 + log[0]++] = value; }
__global__ void append_from(int* log, const int* value) { log[1 + log[0]++] = *value; }

class Captures : public EmulatedTest {
 protected:
  void SetUp() override {
    EmulatedTest::SetUp();
    make_streams();
  }
  void TearDown() override {
    expect_success(cudaFree(log));
    EmulatedTest::TearDown();
  }
  void make_streams() {
    expect_success(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    expect_success(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    expect_success(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    expect_success(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    log = leaked<int>(64);
    expect_success(cudaMemsetAsync(log, 0, 64 * sizeof(int), first));
    expect_success(cudaStreamSynchronize(first));
  }
  void write(cudaStream_t stream, int value) { expect_success(start(append, 1, 1, 0, stream, log, value)); }
  void begin() { expect_success(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal)); }
  cudaGraphExec_t end() {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    expect_success(cudaStreamEndCapture(first, &graph));
    expect_success(cudaGraphInstantiate(&exec, graph));
    expect_success(cudaGraphDestroy(graph));
    return exec;
  }
  // The error of `call`, or of the end, with each of these words.
  void expect_refused(cudaError_t got, cudaError_t want, const char* why) {
    EXPECT_EQ(got, want) << cudaGetErrorString(got);
    EXPECT_THAT(cudaGetErrorString(got), testing::HasSubstr(why));
    EXPECT_EQ(cudaGetLastError(), want);
  }
  std::vector<int> written() const {
    std::vector<int> all(64);
    expect_success(cudaMemcpyAsync(all.data(), log, 64 * sizeof(int), cudaMemcpyDeviceToHost, first));
    return {all.begin() + 1, all.begin() + 1 + all[0]};
  }

  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t fork = nullptr, join = nullptr;
  int* log = nullptr;  // its length, then values
};

TEST_F(Captures, CapturedWorkRunsAtEveryLaunchAndNotBefore) {
  begin();
  write(first, 1);
  expect_success(cudaMemsetAsync(log + 60, 0, sizeof(int), first));
  write(first, 2);
  const cudaGraphExec_t graph = end();
  EXPECT_EQ(pending_work(), 0);
  EXPECT_EQ(written(), std::vector<int>{});
  write(first, 10);
  expect_success(cudaGraphLaunch(graph, first));
  expect_success(cudaGraphLaunch(graph, first));
  write(first, 20);
  EXPECT_EQ(counts("append").launches, 0);
  EXPECT_EQ(written(), (std::vector<int>{10, 1, 2, 1, 2, 20}));
}

// Arguments are those of the recording, whatever became of the variables: only memory is read anew.
TEST_F(Captures, AnArgumentStaysWhatItWasAndMemoryIsReadAnew) {
  DeviceArray<int> in_memory(std::vector<int>{1});
  int argument = 1;
  begin();
  write(first, argument);
  expect_success(start(append_from, 1, 1, 0, first, log, static_cast<const int*>(in_memory.data())));
  const cudaGraphExec_t graph = end();
  argument = 2;
  in_memory.put({argument});
  expect_success(cudaGraphLaunch(graph, first));
  EXPECT_EQ(written(), (std::vector<int>{1, 2}));
}

TEST_F(Captures, StreamsThatEventsJoinTakePartInTheirOrder) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    begin();
    write(first, 1);
    expect_success(cudaEventRecord(fork, first));
    expect_success(cudaStreamWaitEvent(second, fork));
    write(second, 12);
    write(first, 2);
    expect_success(cudaEventRecord(join, second));
    expect_success(cudaStreamWaitEvent(first, join));
    write(first, 3);
    const cudaGraphExec_t graph = end();
    write(second, 99);  // free again
    expect_success(cudaStreamSynchronize(second));
    for (int i = 0; i < 2; ++i) expect_success(cudaGraphLaunch(graph, first));
    expect_success(cudaDeviceSynchronize());
    const std::vector<int> order = written();
    orders.insert(order);
    ASSERT_EQ(order.size(), 9u);
    for (const size_t at : {size_t{1}, size_t{5}}) {
      EXPECT_EQ(order[at], 1);
      EXPECT_EQ(order[at + 1] + order[at + 2], 14);
      EXPECT_EQ(order[at + 3], 3);
    }
  }
  EXPECT_GT(orders.size(), 1u) << "the two streams never changed places";
}

TEST_F(Captures, LaunchesOfOneGraphFollowEachOtherOnAnyStreams) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    begin();
    write(first, 1);
    write(first, 2);
    const cudaGraphExec_t graph = end();
    expect_success(cudaGraphLaunch(graph, first));
    expect_success(cudaGraphLaunch(graph, second));
    expect_success(cudaDeviceSynchronize());
    EXPECT_EQ(written(), (std::vector<int>{1, 2, 1, 2}));
  }
}

// Each of them would wait for work that does not run, or change memory whose addresses are being recorded.
TEST_F(Captures, CallsThatACaptureDoesNotSurvive) {
  int ordinary = 0, *pinned = nullptr;
  void* memory = nullptr;
  expect_success(cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(int)));
  const std::pair<const char*, std::function<cudaError_t()>> calls[] = {
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(first); }},
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(second); }},
      {"cudaDeviceSynchronize", [&] { return cudaDeviceSynchronize(); }},
      {"cudaStreamQuery", [&] { return cudaStreamQuery(first); }},
      {"cudaEventSynchronize", [&] { return cudaEventSynchronize(fork); }},
      {"cudaEventQuery", [&] { return cudaEventQuery(fork); }},
      {"cudaMalloc", [&] { return cudaMalloc(&memory, 4); }},
      {"cudaMallocHost", [&] { return cudaMallocHost(&memory, 4); }},
      {"cudaFree", [&] { return cudaFree(log); }},
      {"cudaFreeHost", [&] { return cudaFreeHost(pinned); }},
      {"cudaMemcpy", [&] { return cudaMemcpy(log, pinned, 4, cudaMemcpyHostToDevice); }},
      {"ordinary memory", [&] { return cudaMemcpyAsync(log, &ordinary, 4, cudaMemcpyHostToDevice, first); }},
      {"ordinary memory", [&] { return cudaMemcpyAsync(&ordinary, log, 4, cudaMemcpyDeviceToHost, first); }},
      {"cudaStreamDestroy", [&] { return cudaStreamDestroy(first); }},
      {"cudaStreamBeginCapture",
       [&] { return cudaStreamBeginCapture(second, cudaStreamCaptureModeThreadLocal); }},
  };
  for (const auto& [name, call] : calls) {
    SCOPED_TRACE(name);
    begin();
    write(first, 1);
    expect_refused(call(), cudaErrorStreamCaptureUnsupported, name);
    expect_refused(start(append, 1, 1, 0, first, log, 2), cudaErrorStreamCaptureInvalidated, name);
    cudaGraph_t graph = nullptr;
    expect_refused(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated, name);
    EXPECT_EQ(graph, nullptr);
  }
  write(first, 3);  // the stream is as before
  EXPECT_EQ(written(), std::vector<int>{3});
  expect_success(cudaFreeHost(pinned));
}

TEST_F(Captures, EventsMustNotReachInOrOutOfACapture) {
  cudaGraph_t graph = nullptr;
  expect_success(cudaEventRecord(fork, second));
  begin();
  expect_refused(cudaStreamWaitEvent(first, fork), cudaErrorStreamCaptureIsolation, "before the capture");
  expect_refused(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated,
                 "before the capture");
  begin();
  expect_success(cudaEventRecord(fork, first));
  expect_success(cudaStreamWaitEvent(second, fork));
  write(second, 1);
  expect_refused(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnjoined, "not waited for");
  begin();
  expect_success(cudaEventRecord(fork, first));
  end();
  expect_refused(cudaEventSynchronize(fork), cudaErrorCapturedEvent, "recorded in a capture");
  expect_refused(cudaEventQuery(fork), cudaErrorCapturedEvent, "recorded in a capture");
  expect_refused(cudaStreamWaitEvent(second, fork), cudaErrorCapturedEvent, "that is over");
  expect_success(cudaDeviceSynchronize());
}

TEST_F(Captures, CapturesAreBegunAndEndedInPairs) {
  cudaGraph_t graph = nullptr;
  expect_refused(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnmatched, "no capture began");
  expect_refused(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal),
                 cudaErrorStreamCaptureUnsupported, "default stream");
  begin();
  std::thread([&] {
    EXPECT_EQ(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureWrongThread);
    expect_success(cudaStreamSynchronize(second));  // other threads wait as they like
    EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureWrongThread);
  }).join();
  const cudaGraphExec_t exec = end();
  expect_success(cudaGraphExecDestroy(exec));
  expect_refused(cudaGraphLaunch(exec, first), cudaErrorInvalidValue, "destroyed");
}

TEST_F(Captures, ALaunchThatMeetsFreedMemoryFails) {
  for (const bool copied : {false, true}) {
    int* value = leaked<int>(1);
    begin();
    if (copied) {
      expect_success(cudaMemcpyAsync(log, value, sizeof(int), cudaMemcpyDeviceToDevice, first));
    } else {
      expect_success(start(append_from, 1, 1, 0, first, log, static_cast<const int*>(value)));
    }
    const cudaGraphExec_t graph = end();
    expect_success(cudaFree(value));
    expect_success(cudaGraphLaunch(graph, first));
    const cudaError_t error = cudaStreamSynchronize(first);
    EXPECT_EQ(error, cudaErrorLaunchFailure);
    EXPECT_THAT(cudaGetErrorString(error), testing::HasSubstr("freed"));
    reset(default_seed());
    make_streams();
  }
}

TEST_F(Captures, PinnedMemoryIsReadAtEveryLaunch) {
  int* pinned = nullptr;
  expect_success(cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(int)));
  begin();
  expect_success(cudaMemcpyAsync(log + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, first));
  const cudaGraphExec_t graph = end();
  int got = 0;
  for (const int value : {5, 6}) {
    *pinned = value;
    expect_success(cudaGraphLaunch(graph, first));
    expect_success(cudaMemcpyAsync(&got, log + 1, sizeof(int), cudaMemcpyDeviceToHost, first));
    EXPECT_EQ(got, value);
  }
  expect_success(cudaFreeHost(pinned));
  expect_success(cudaGraphLaunch(graph, first));
  EXPECT_EQ(cudaStreamSynchronize(first), cudaErrorLaunchFailure);
  EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure), testing::HasSubstr("pinned memory that was freed"));
  reset(default_seed());
  make_streams();
}

}  // namespace
}  // namespace ziggurat::emulation
