// An op on the emulated device and on the CPU, with the same values: the tape, arenas, dispatch and kernels
// of a training step, forward and backward.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "tests/emulation/emulated_test.h"
#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::emulation {

enum class InputType { storage, accumulation };  // of a case's dtype: itself, or that of its sums

struct OpInput {
  std::string name;
  Shape shape;
  InputType type = InputType::storage;
};

// Output and the gradients of all inputs agree, in f32 and bf16. The op may use its inputs several times.
void expect_device_equals_cpu(const std::vector<OpInput>& inputs,
                              const std::function<Var(Tape&, const std::vector<Var>&)>& op);
// The same with parameters.
using OpWithParams = std::function<Var(Tape&, const std::vector<Var>&, const std::deque<Param>&)>;
void expect_device_equals_cpu(const std::vector<OpInput>& inputs, const std::vector<OpInput>& params,
                              const OpWithParams& op);

}  // namespace ziggurat::emulation
