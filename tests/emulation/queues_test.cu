// Streams, events and copies: what the emulated device runs when, and which mistakes of order it shows.
#include <algorithm>
#include <set>
#include <thread>

#include "tests/emulation/emulator_tests.h"

namespace ziggurat::emulation {
namespace {

class Queues : public EmulatedTest {
 protected:
  void SetUp() override {
    EmulatedTest::SetUp();
    make_streams();
  }
  void make_streams() {
    expect_success(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    expect_success(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    expect_success(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    log = leaked<int>(64);
    expect_success(cudaMemsetAsync(log, 0, 64 * sizeof(int), first));
    expect_success(cudaStreamSynchronize(first));
  }
  void TearDown() override {
    expect_success(cudaFree(log));
    EmulatedTest::TearDown();
  }
  void write(cudaStream_t stream, int value);
  std::vector<int> written() const;  // in the order in which it ran

  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t event = nullptr;
  int* log = nullptr;  // its length, then values
};

__global__ void append(int* log, int value) { log[1 + log[0]++] = value; }

void Queues::write(cudaStream_t stream, int value) {
  expect_success(start(append, 1, 1, 0, stream, log, value));
}

std::vector<int> Queues::written() const {
  std::vector<int> all(64);
  expect_success(cudaMemcpyAsync(all.data(), log, 64 * sizeof(int), cudaMemcpyDeviceToHost, first));
  return {all.begin() + 1, all.begin() + 1 + all[0]};
}

TEST_F(Queues, NothingRunsUntilTheHostWaits) {
  write(first, 1);
  write(second, 2);
  EXPECT_EQ(counts("append").launches, 0);
  EXPECT_EQ(pending_work(), 2);
  expect_success(cudaStreamSynchronize(first));
  EXPECT_GE(counts("append").launches, 1);
  expect_success(cudaDeviceSynchronize());
  EXPECT_EQ(counts("append").launches, 2);
  EXPECT_EQ(pending_work(), 0);
}

TEST_F(Queues, AStreamKeepsItsOrderAndSeedsGiveOthersTheirs) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    for (const int i : {1, 2, 3}) write(first, i);
    for (const int i : {11, 12, 13}) write(second, i);
    expect_success(cudaDeviceSynchronize());
    const std::vector<int> order = written();
    orders.insert(order);
    std::vector<int> of_first, of_second;
    for (const int i : order) (i < 10 ? of_first : of_second).push_back(i);
    EXPECT_EQ(of_first, (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(of_second, (std::vector<int>{11, 12, 13}));
  }
  EXPECT_GT(orders.size(), 5u);
}

TEST_F(Queues, ASeedGivesTheSameOrderAgain) {
  std::vector<std::vector<int>> orders;
  for (int run = 0; run < 2; ++run) {
    reset(7);
    make_streams();
    for (int i = 0; i < 8; ++i) write(i % 2 == 0 ? first : second, i);
    expect_success(cudaDeviceSynchronize());
    orders.push_back(written());
  }
  EXPECT_EQ(orders[0], orders[1]);
}

// 1 on one stream, then 2 on another: with the event always in this order, without it not.
TEST_F(Queues, AMissingEventIsFound) {
  for (const bool with_event : {true, false}) {
    int wrong = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      reset(seed);
      make_streams();
      write(first, 1);
      if (with_event) {
        expect_success(cudaEventRecord(event, first));
        expect_success(cudaStreamWaitEvent(second, event));
      }
      write(second, 2);
      expect_success(cudaStreamSynchronize(second));
      expect_success(cudaDeviceSynchronize());
      if (written() != std::vector<int>{1, 2}) ++wrong;
    }
    if (with_event) {
      EXPECT_EQ(wrong, 0);
    } else {
      EXPECT_GT(wrong, 4);
    }
  }
}

// A wait is for what was recorded last when it was queued, on whichever stream: not for earlier records, nor
// later ones.
TEST_F(Queues, AnEventRecordedTwiceStandsForTheLatest) {
  bool early_first = false;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    reset(seed);
    make_streams();
    cudaStream_t third = nullptr;
    expect_success(cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking));
    write(first, 1);
    expect_success(cudaEventRecord(event, first));
    write(second, 2);
    expect_success(cudaEventRecord(event, second));
    expect_success(cudaStreamWaitEvent(third, event));
    expect_success(cudaEventRecord(event, first));  // too late to matter for the wait
    write(third, 3);
    expect_success(cudaStreamSynchronize(third));
    expect_success(cudaDeviceSynchronize());
    const std::vector<int> order = written();
    const auto at = [&](int value) { return std::find(order.begin(), order.end(), value); };
    EXPECT_LT(at(2), at(3)) << "seed " << seed;
    early_first = early_first || at(3) < at(1);
  }
  EXPECT_TRUE(early_first) << "3 never ran before 1, for which it need not wait";
}

TEST_F(Queues, SynchronizingWithAnEventWaitsForItsLatestRecord) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    expect_success(cudaEventRecord(event, second));
    write(first, 1);
    expect_success(cudaEventRecord(event, first));
    write(first, 2);
    expect_success(cudaEventSynchronize(event));
    EXPECT_GE(counts("append").launches, 1);
    expect_success(cudaDeviceSynchronize());
  }
}

TEST_F(Queues, AnEventMayBeDestroyedWhileAStreamWaitsForIt) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    write(first, 1);
    expect_success(cudaEventRecord(event, first));
    expect_success(cudaStreamWaitEvent(second, event));
    write(second, 2);
    expect_success(cudaEventDestroy(event));
    EXPECT_EQ(counts("append").launches, 0) << "destroying runs nothing";
    expect_success(cudaDeviceSynchronize());
    EXPECT_EQ(written(), (std::vector<int>{1, 2}));
    EXPECT_EQ(cudaEventRecord(event, first), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
  }
}

TEST_F(Queues, DestroyingAStreamRunsNothingAndLosesNothing) {
  write(second, 2);
  expect_success(cudaStreamDestroy(second));
  EXPECT_EQ(counts("append").launches, 0);
  EXPECT_EQ(start(append, 1, 1, 0, second, log, 3), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
  expect_success(cudaDeviceSynchronize());
  EXPECT_EQ(written(), std::vector<int>{2});
}

TEST_F(Queues, LoopsAroundAQueryEnd) {
  write(first, 1);
  expect_success(cudaEventRecord(event, first));
  EXPECT_EQ(pending_work(), 2);
  while (cudaEventQuery(event) == cudaErrorNotReady) {
  }
  EXPECT_EQ(counts("append").launches, 1);
  write(second, 2);
  int asked = 0;
  while (cudaStreamQuery(second) == cudaErrorNotReady) ++asked;
  EXPECT_EQ(counts("append").launches, 2);
  // A query is no wait: some leave the work where it is.
  for (int i = 0; i < 20; ++i) {
    write(first, 3);
    while (cudaStreamQuery(first) == cudaErrorNotReady) ++asked;
  }
  EXPECT_GT(asked, 0);
}

TEST_F(Queues, TheDefaultStreamComesBetweenAllThatDoNotDecline) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    reset(seed);
    make_streams();
    cudaStream_t blocking = nullptr;
    expect_success(cudaStreamCreate(&blocking));
    write(blocking, 1);
    write(nullptr, 2);
    write(blocking, 3);
    expect_success(cudaDeviceSynchronize());
    EXPECT_EQ(written(), (std::vector<int>{1, 2, 3}));
  }
}

// Pinned memory is read when the copy runs, ordinary memory when it is queued.
TEST_F(Queues, PinnedMemoryIsReadWhenTheCopyRuns) {
  int *pinned = nullptr, *device_side = leaked<int>(1);
  expect_success(cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(int)));
  EXPECT_EQ(*pinned, -1) << "fresh memory";
  for (const bool is_pinned : {true, false}) {
    int ordinary = 0;
    int* from = is_pinned ? pinned : &ordinary;
    *from = 1;
    expect_success(cudaMemcpyAsync(device_side, from, sizeof(int), cudaMemcpyHostToDevice, first));
    *from = 2;  // too early, if it is pinned
    int got = 0;
    expect_success(cudaMemcpyAsync(&got, device_side, sizeof(int), cudaMemcpyDeviceToHost, first));
    EXPECT_EQ(got, is_pinned ? 2 : 1);
  }
  // And is written only then.
  *pinned = 5;
  expect_success(cudaMemcpyAsync(pinned, device_side, sizeof(int), cudaMemcpyDeviceToHost, first));
  EXPECT_EQ(*pinned, 5);
  expect_success(cudaStreamSynchronize(first));
  EXPECT_EQ(*pinned, 1);
  expect_success(cudaFreeHost(pinned));
  expect_success(cudaFree(device_side));
}

TEST_F(Queues, CopiesAreChecked) {
  int host[200] = {};
  const auto refused = [](cudaError_t error, const char* why) {
    EXPECT_EQ(error, cudaErrorInvalidValue);
    EXPECT_THAT(cudaGetErrorString(error), testing::HasSubstr(why));
    EXPECT_EQ(cudaGetLastError(), error);
  };
  refused(cudaMemcpyAsync(log, host, 65 * sizeof(int), cudaMemcpyHostToDevice, first),
          "260 bytes at byte 0 of an allocation of 256");
  refused(cudaMemcpyAsync(host, log, 4, cudaMemcpyHostToDevice, first), "no memory of the device");
  refused(cudaMemcpyAsync(log, log, 4, cudaMemcpyDeviceToHost, first),
          "is memory of the device, against its kind");
  refused(cudaMemsetAsync(host, 0, 4, first), "no memory of the device");
  refused(cudaFree(host), "never allocated");
}

TEST_F(Queues, FreshMemoryIsNotANumber) {
  const DeviceArray<float> x(5);
  for (const float value : x.get()) EXPECT_TRUE(std::isnan(value));
}

TEST_F(Queues, FunctionsOfTheHostKeepTheOrder) {
  int seen = 0;
  write(first, 1);
  expect_success(cudaLaunchHostFunc(
      first, [](void* p) { *static_cast<int*>(p) = static_cast<int>(counts("append").launches); }, &seen));
  write(first, 2);
  EXPECT_EQ(seen, 0);
  expect_success(cudaStreamSynchronize(first));
  EXPECT_EQ(seen, 1);
}

// Ranks as threads of one process: each has its stream, and whoever waits runs the work.
TEST_F(Queues, ThreadsOfTheHostShareTheDevice) {
  constexpr int kThreads = 4, kLaunches = 25;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      cudaStream_t own = nullptr;
      expect_success(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
      const DeviceArray<int> values(64);
      for (int i = 0; i < kLaunches; ++i) {
        expect_success(cudaMemsetAsync(values.data(), 0, 64 * sizeof(int), own));
        expect_success(start(append, 1, 1, 0, own, values.data(), i));
        std::vector<int> got(64);
        expect_success(
            cudaMemcpyAsync(got.data(), values.data(), 64 * sizeof(int), cudaMemcpyDeviceToHost, own));
        EXPECT_EQ(got[1], i);
      }
      expect_success(cudaStreamDestroy(own));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts("append").launches, kThreads * kLaunches);
}

}  // namespace
}  // namespace ziggurat::emulation
