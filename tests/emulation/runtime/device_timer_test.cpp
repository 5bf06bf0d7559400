#include "tests/emulation/emulated_test.h"
#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/device_timer.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat::emulation {
namespace {

using DeviceTimers = EmulatedTest;

struct Zeros {
  void fill() { backend(Device::cuda).fill_zero(memory, 64, stream); }
  Stream stream{Device::cuda};
  void* memory = backend(Device::cuda).allocate(64);
  ~Zeros() { backend(Device::cuda).free(memory); }
};

TEST_F(DeviceTimers, TellsOfWorkThatWasOnlyQueued) {
  Zeros zeros;
  DeviceTimer timer;
  timer.start(zeros.stream);
  for (int i = 0; i < 10; ++i) zeros.fill();
  timer.stop(zeros.stream);
  EXPECT_EQ(device_work().waits, 0);
  EXPECT_GT(timer.seconds(), 0);
  zeros.stream.wait();
}

TEST_F(DeviceTimers, RefusesATimeInWhichTheHostWaited) {
  Zeros zeros;
  DeviceTimer timer;
  timer.start(zeros.stream);
  zeros.fill();
  zeros.stream.wait();
  EXPECT_THROW(timer.stop(zeros.stream), Error);
  EXPECT_THROW(fastest_on_device(zeros.stream, [&] { zeros.fill(), zeros.stream.wait(); }), Error);
  zeros.stream.wait();
}

TEST_F(DeviceTimers, CallsAsOftenAsAsked) {
  Zeros zeros;
  int calls = 0;
  const auto body = [&] { zeros.fill(), ++calls; };
  EXPECT_GT(fastest_on_device(zeros.stream, body, {.seconds = 0, .means = 3}), 0);
  EXPECT_EQ(calls, 2 + 3);  // one call a mean, where so many take the time
  calls = 0;
  fastest_on_device(zeros.stream, body, {.seconds = 1e3, .means = 2});
  EXPECT_EQ(calls, 2 + 2 * 1000);  // no more than these
  zeros.stream.wait();
}

}  // namespace
}  // namespace ziggurat::emulation
