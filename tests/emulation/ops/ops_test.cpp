#include "tests/emulation/ops/device_and_cpu.h"
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>
#include <ziggurat/ops/gated_add.h>
#include <ziggurat/ops/layer_norm.h>
#include <ziggurat/ops/mix.h>
#include <ziggurat/ops/qk_norm.h>
#include <ziggurat/ops/rms_norm.h>
#include <ziggurat/ops/rope.h>
#include <ziggurat/ops/router.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::emulation {
namespace {

class EmulatedOps : public EmulatedTest {};

// Shapes with and without rows that can be loaded by 16 bytes. Every op twice on the same inputs: gradients
// are added up.
const Shape kShapes[] = {{3, 128}, {5, 131}, {1, 1}};

TEST_F(EmulatedOps, Add) {
  for (const Shape& shape : kShapes) {
    expect_device_equals_cpu({{"a", shape}, {"b", shape}}, [](Tape& tape, const std::vector<Var>& v) {
      return ops::add(tape, ops::add(tape, v[0], v[1]), v[0]);
    });
  }
}

TEST_F(EmulatedOps, Swiglu) {
  for (const Shape& shape : kShapes) {
    expect_device_equals_cpu({{"gate", shape}, {"up", shape}}, [](Tape& tape, const std::vector<Var>& v) {
      return ops::swiglu(tape, ops::swiglu(tape, v[0], v[1]), v[1]);
    });
  }
}

TEST_F(EmulatedOps, Mix) {
  for (const Shape& shape : kShapes) {
    expect_device_equals_cpu({{"a", shape}, {"b", shape}, {"logits", {shape[0], 2}, InputType::accumulation}},
                             [](Tape& tape, const std::vector<Var>& v) {
                               return ops::mix(tape, ops::mix(tape, v[0], v[1], v[2]), v[0], v[2]);
                             });
  }
}

TEST_F(EmulatedOps, GatedAdd) {
  for (const Shape& shape : kShapes) {
    expect_device_equals_cpu({{"a", shape}, {"b", shape}, {"gates", {shape[0], 1}, InputType::accumulation}},
                             [](Tape& tape, const std::vector<Var>& v) {
                               return ops::gated_add(tape, ops::gated_add(tape, v[0], v[1], v[2]), v[0],
                                                     v[2]);
                             });
  }
}

TEST_F(EmulatedOps, Dropout) {
  for (const Shape& shape : kShapes) {
    expect_device_equals_cpu({{"x", shape}, {"residual", shape}}, [](Tape& tape, const std::vector<Var>& v) {
      const Var dropped = ops::dropout(tape, v[0], 0.3, Purpose::embedding_dropout, 0);
      return ops::dropout_add(tape, dropped, v[1], 0.2, Purpose::hidden_dropout, 1);
    });
  }
}

TEST_F(EmulatedOps, Rope) {
  for (const ops::AttentionShape& shape :
       {ops::AttentionShape{2, 5, 4, 2, 16}, {1, 3, 2, 1, 6}, {2, 1, 1, 1, 64}}) {
    expect_device_equals_cpu({{"qkv", {shape.rows(), shape.width()}}},
                             [&shape](Tape& tape, const std::vector<Var>& v) {
                               const Var once = ops::rope(tape, v[0], shape, 100.0);
                               return ops::add(tape, ops::rope(tape, once, shape, 10000.0), v[0]);
                             });
  }
}

// More rows than a partial sum has. Not one column: its variance is zero, and layer norm's gradient then is
// what rounding left, three hundred times.
const Shape kNormShapes[] = {{70, 128}, {33, 131}, {1, 3}};

TEST_F(EmulatedOps, RmsNorm) {
  for (const Shape& shape : kNormShapes) {
    expect_device_equals_cpu({{"x", shape}}, {{"weight", {shape[1]}, InputType::accumulation}},
                             [](Tape& tape, const std::vector<Var>& v, const std::deque<Param>& p) {
                               return ops::add(tape, ops::rms_norm(tape, v[0], p[0], 1e-5), v[0]);
                             });
  }
}

TEST_F(EmulatedOps, LayerNorm) {
  for (const Shape& shape : kNormShapes) {
    expect_device_equals_cpu(
        {{"x", shape}},
        {{"weight", {shape[1]}, InputType::accumulation}, {"bias", {shape[1]}, InputType::accumulation}},
        [](Tape& tape, const std::vector<Var>& v, const std::deque<Param>& p) {
          return ops::add(tape, ops::layer_norm(tape, v[0], p[0], p[1], 1e-5), v[0]);
        });
  }
}

// Heads of 1 to 32 lanes and more, and none that can be loaded by 16 bytes.
TEST_F(EmulatedOps, QkNorm) {
  for (const ops::AttentionShape& heads :
       {ops::AttentionShape{2, 17, 4, 2, 16}, {1, 5, 2, 1, 6}, {2, 2, 3, 3, 128}, {1, 34, 2, 1, 256}}) {
    for (const bool per_head : {true, false}) {
      const ops::QkNormShape shape{heads, per_head};
      expect_device_equals_cpu({{"qkv", {heads.rows(), heads.width()}}},
                               {{"q_weight", {shape.q_cols()}, InputType::accumulation},
                                {"k_weight", {shape.k_cols()}, InputType::accumulation}},
                               [&](Tape& tape, const std::vector<Var>& v, const std::deque<Param>& p) {
                                 return ops::add(tape, ops::qk_norm(tape, v[0], shape, p[0], p[1], 1e-5),
                                                 v[0]);
                               });
    }
  }
}

// A tape on the device, with little memory.
struct DeviceTape {
  Stream stream{Device::cuda};
  Arena memory{"memory", 1 << 20, Device::cuda}, gradients{"gradients", 1 << 20, Device::cuda},
      workspace{"workspace", 1 << 20, Device::cuda}, data{"data", 1 << 20, Device::cuda};
  Tape tape{memory, gradients, workspace, stream};
};

void expect_refused(const std::string& text, const std::function<void()>& call) {
  try {
    call();
    FAIL() << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

// Their kernels exist; what they do around them is the host's.
TEST_F(EmulatedOps, OpsThatReadTheirResultsOnTheHostSaySo) {
  DeviceTape device;
  Tape& tape = device.tape;
  tape.begin({});
  const Var x = tape.constant(allocate(device.data, DType::f32, {2, 3}));
  const Param weight{allocate(device.data, DType::f32, {5, 3}), {}};
  const int32_t targets[] = {0, 1};
  expect_refused("[router] there are kernels for cuda, but", [&] { ops::route(tape, x, ops::RouterArgs{}); });
  expect_refused("[cross_entropy] there are kernels for cuda, but",
                 [&] { ops::cross_entropy(tape, x, weight, targets, {.vocab_size = 5}); });
}

TEST_F(EmulatedOps, AnOpWithoutKernelsThereIsNamed) {
  DeviceTape device;
  device.tape.begin({});
  const Var x = device.tape.constant(allocate(device.data, DType::f64, {2, 3}));
  expect_refused("[swiglu] no kernel for f64 on cuda", [&] { ops::swiglu(device.tape, x, x); });
}

}  // namespace
}  // namespace ziggurat::emulation
