// Graphs as the rooms above the kernels use them.
#include <gmock/gmock.h>

#include "tests/emulation/emulated_test.h"
#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/runtime/graph.h>
#include <ziggurat/train/micro_batch_graphs.h>

namespace ziggurat::emulation {
namespace {

template <class F>
void expect_error(ErrorKind kind, const char* words, const F& run) {
  try {
    run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_THAT(error.what(), testing::HasSubstr(words));
  }
}

using Graphs = EmulatedTest;

// A sum of ones on the device.
struct Sum {
  Sum() {
    fill_zero(sum, stream);
    std::vector<float> ones(kN, 1.0f);
    copy(Tensor(ones.data(), DType::f32, {kN}), one, stream);
    stream.wait();
  }
  void add() { accumulate(one, sum, stream); }
  float value() {
    std::vector<float> here(kN);
    copy(sum, Tensor(here.data(), DType::f32, {kN}), stream);
    stream.wait();
    return here[0];
  }

  static constexpr int64_t kN = 16;
  Arena arena{"test", 4096, Device::cuda};
  Stream stream{Device::cuda};
  Tensor one = allocate(arena, DType::f32, {kN}), sum = allocate(arena, DType::f32, {kN});
};

TEST_F(Graphs, ALaunchDoesWhatWasRecorded) {
  Sum sum;
  const DeviceWork before = device_work();
  Graph graph = Graph::record(sum.stream, [&] { sum.add(), sum.add(); });
  EXPECT_EQ(sum.value(), 0);
  EXPECT_EQ(device_work().launches, before.launches) << "nothing was launched";
  for (int i = 0; i < 3; ++i) graph.launch(sum.stream);
  EXPECT_EQ(sum.value(), 6);
  EXPECT_EQ(device_work().launches, before.launches);
  EXPECT_EQ(device_work().graphs, before.graphs + 3);
  Graph moved = std::move(graph);
  EXPECT_FALSE(static_cast<bool>(graph));
  moved.launch(sum.stream);
  EXPECT_EQ(sum.value(), 8);
}

TEST_F(Graphs, AnErrorWhileRecordingLeavesTheStreamAsItWas) {
  Sum sum;
  const DeviceWork before = device_work();
  expect_error(ErrorKind::argument, "planted", [&] {
    Graph::record(sum.stream, [&] {
      sum.add();
      fail(ErrorKind::argument, "planted");
    });
  });
  EXPECT_EQ(device_work().launches, before.launches);
  sum.add();
  EXPECT_EQ(sum.value(), 1);
}

TEST_F(Graphs, CallsThatCannotBeRecordedAreNamed) {
  Sum sum;
  const std::pair<const char*, std::function<void()>> calls[] = {
      {"cudaStreamSynchronize", [&] { sum.stream.wait(); }},
      {"cudaMalloc", [] { const Arena more("more", 64, Device::cuda); }},
      {"ordinary memory", [&] { sum.value(); }},
  };
  for (const auto& [name, call] : calls) {
    expect_error(ErrorKind::device, name, [&] { Graph::record(sum.stream, call); });
    sum.add();
    EXPECT_GT(sum.value(), 0);
  }
}

TEST_F(Graphs, AreOfDevicesThatQueueWork) {
  Stream stream(Device::cuda), host;
  expect_error(ErrorKind::internal, "nothing was recorded", [&] { Graph().launch(stream); });
  expect_error(ErrorKind::internal, "cpu", [&] { Graph::record(host, [] {}); });
}

// A parameter and a tape: what MicroBatchGraphs looks at.
struct Repeated {
  Repeated() { store.finalize(); }
  void run(bool first, const model::TokenBatch& batch = kBatch) {
    tape.begin({.first = first});
    graphs.run(tape, batch, false, [&] {
      if (first) weight.must_add();
    });
  }
  bool& unwritten() { return *weight.unwritten; }

  static constexpr int32_t kTable = 0;
  static constexpr model::TokenBatch kBatch{&kTable, &kTable, 1, 1};
  nn::ParamStore store{{.device = Device::cuda}};
  const Param& weight =
      store.add({.name = "w", .global_shape = {4, 4}, .init = nn::Init::zeros(), .product = true});
  Stream stream{Device::cuda};
  Arena activations{"activations", 4096, Device::cuda}, gradients{"gradients", 64, Device::cuda},
      workspace{"workspace", 64, Device::cuda};
  Tape tape{activations, gradients, workspace, stream};
  train::MicroBatchGraphs graphs{store, true};
};

TEST_F(Graphs, FlagsOfGradientsAreTakenAsIfTheWorkHadBeenQueued) {
  Repeated work;
  const int64_t launches = device_work().graphs;
  for (int step = 0; step < 4; ++step) {
    work.unwritten() = true;
    work.run(true);
    EXPECT_FALSE(work.unwritten()) << "step " << step;
    work.run(false);
    work.run(false);
  }
  EXPECT_EQ(device_work().graphs, launches + 4 * 3 - 2) << "all but the first of each kind";
  work.stream.wait();
}

TEST_F(Graphs, AreNotLaunchedWhereTheWorkWouldBeAnother) {
  Repeated work;
  for (int i = 0; i < 2; ++i) work.unwritten() = true, work.run(true);
  expect_error(ErrorKind::internal, "the graph writes it", [&] { work.run(true); });
  work.unwritten() = true;
  work.run(true);
  work.run(false);
  work.run(false);
  work.unwritten() = true;
  expect_error(ErrorKind::internal, "w: its gradient is to be written", [&] { work.run(false); });
  model::TokenBatch shorter = Repeated::kBatch, elsewhere = shorter;
  shorter.length = 0;
  constexpr int32_t kOther = 0;
  elsewhere.targets = &kOther;
  for (const model::TokenBatch& other : {shorter, elsewhere}) {
    expect_error(ErrorKind::internal, "train.graphs=off", [&] { work.run(true, other); });
  }
  work.stream.wait();
}

TEST_F(Graphs, AHostThatWaitsInsideAMicroBatchIsTold) {
  Repeated work;
  const auto waits = [&] {
    work.tape.begin({});
    work.graphs.run(work.tape, Repeated::kBatch, false, [&] { work.stream.wait(); });
  };
  waits();
  expect_error(ErrorKind::device, "train.graphs=off", waits);
  work.stream.wait();
}

}  // namespace
}  // namespace ziggurat::emulation
