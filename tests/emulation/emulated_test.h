// What a test of the emulated device starts from and must leave behind.
#pragma once

#include <gtest/gtest.h>

#include "tests/emulation/device_array.h"
#include "tests/emulation/emulated_device.h"
#include <ziggurat/runtime/device.h>

namespace ziggurat::emulation {

class EmulatedTest : public testing::Test {
 protected:
  // Before and after the members of a test, which may be streams.
  EmulatedTest() { reset(default_seed()); }
  ~EmulatedTest() override { reset(default_seed()); }
  void TearDown() override {
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << cudaGetErrorString(cudaPeekAtLastError());
    EXPECT_EQ(pending_work(), 0) << "queued, and nobody waited for it";
    EXPECT_EQ(live_allocations(), 0) << "device memory was not freed";
  }
};

}  // namespace ziggurat::emulation
