// Ops on the emulated device and on the CPU, with the same values: the tape, arenas, dispatch and kernels of
// a training step, forward and backward.
#pragma once

#include "tests/emulation/emulated_test.h"
#include "tests/support/op_cases.h"

namespace ziggurat::emulation {

// Output and the gradients of all inputs agree, in f32 and bf16.
void expect_device_equals_cpu(const test::OpCase& c);

}  // namespace ziggurat::emulation
