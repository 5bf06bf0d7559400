#include "tests/emulation/ops/device_and_cpu.h"
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::emulation {
namespace {

class EmulatedOpCases : public EmulatedTest, public testing::WithParamInterface<test::OpCase> {};

TEST_P(EmulatedOpCases, EqualTheCpus) { expect_device_equals_cpu(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Ops, EmulatedOpCases, testing::ValuesIn(test::op_cases()));

class EmulatedOps : public EmulatedTest {};

// A tape on the device, with little memory.
struct DeviceTape {
  Stream stream{Device::cuda};
  Arena memory{"memory", 1 << 20, Device::cuda}, gradients{"gradients", 1 << 20, Device::cuda},
      workspace{"workspace", 1 << 20, Device::cuda}, data{"data", 1 << 20, Device::cuda};
  Tape tape{memory, gradients, workspace, stream};
};

// The first product of a step writes the weight's gradient, whatever lies there; the second adds to it.
TEST_F(EmulatedOps, LinearWritesAGradientThatNobodyHasWritten) {
  std::deque<Param> weights;
  std::deque<bool> unwritten;
  expect_device_equals_cpu(
      {"linear",
       {{"x", {6, 16}}},
       {{"weight", {24, 16}}},
       [&](Tape& tape, const std::vector<Var>& v, const std::deque<Param>& p) {
         if (p[0].grad.device() == Device::cuda) {
           expect_success(cudaMemset(p[0].grad.raw(), 0xff, static_cast<size_t>(p[0].grad.bytes())));
         }
         unwritten.push_back(true);
         weights.push_back(p[0]);
         weights.back().unwritten = &unwritten.back();
         const Var once = ops::linear(tape, v[0], weights.back());
         return ops::add(tape, ops::linear(tape, v[0], weights.back()), once);
       }});
  for (const bool flag : unwritten) EXPECT_FALSE(flag);
}

TEST_F(EmulatedOps, LogitsOfInference) {
  DeviceTape device;
  device.tape.begin({.training = false});
  const Var x = device.tape.constant(allocate(device.data, DType::bf16, {2, 16}));
  const Param weight{allocate(device.data, DType::bf16, {5, 16}), {}};
  for (const Tensor& tensor : {x.value(), weight.value}) {  // of 1.0, once in two bytes
    std::vector<bf16> ones(static_cast<size_t>(tensor.numel()), bf16(1.0f));
    copy(Tensor(ones.data(), DType::bf16, tensor.shape()), tensor, device.stream);
  }
  const Var y = ops::logits(device.tape, x, weight), h = ops::linear(device.tape, x, weight);
  std::vector<float> logits(10);
  std::vector<bf16> hidden(10);
  copy(y.value(), Tensor(logits.data(), DType::f32, {2, 5}), device.stream);
  copy(h.value(), Tensor(hidden.data(), DType::bf16, {2, 5}), device.stream);
  expect_success(cudaDeviceSynchronize());
  for (const float logit : logits) EXPECT_EQ(logit, 16.0f);
  for (const bf16 value : hidden) EXPECT_EQ(static_cast<float>(value), 16.0f);
}

void expect_refused(const std::string& text, const std::function<void()>& call) {
  try {
    call();
    FAIL() << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST_F(EmulatedOps, AnOpWithoutKernelsThereIsNamed) {
  DeviceTape device;
  device.tape.begin({});
  const Var x = device.tape.constant(allocate(device.data, DType::f64, {2, 3}));
  expect_refused("[swiglu] no kernel for f64 on cuda", [&] { ops::swiglu(device.tape, x, x); });
  device.tape.stream().wait();  // for the numbers of the micro-batch
}

}  // namespace
}  // namespace ziggurat::emulation
