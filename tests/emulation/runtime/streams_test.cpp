// Streams, events and memory of the host beside the emulated device, as the rooms above the kernels use them.
#include <cstring>
#include <numeric>

#include "tests/emulation/emulated_test.h"
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/batch_upload.h>

namespace ziggurat::emulation {
namespace {

using Streams = EmulatedTest;

std::vector<int32_t> counted(int64_t n, int32_t from) {
  std::vector<int32_t> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), from);
  return values;
}

std::vector<int32_t> on_host(const int32_t* there, int64_t n, Stream& stream) {
  std::vector<int32_t> here(static_cast<size_t>(n));
  copy(Tensor(const_cast<int32_t*>(there), DType::i32, {n}, Device::cuda),
       Tensor(here.data(), DType::i32, {n}), stream);
  stream.wait();
  return here;
}

TEST_F(Streams, AnEventPutsOneStreamsWorkBehindAnothers) {
  constexpr int64_t kN = 64;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    reset(seed);
    Arena arena("test", 4096, Device::cuda);
    Stream first(Device::cuda), second(Device::cuda);
    Event done(Device::cuda);
    const Tensor a = allocate(arena, DType::i32, {kN}), b = allocate(arena, DType::i32, {kN});
    std::vector<int32_t> values = counted(kN, 7), seen(kN);
    copy(Tensor(values.data(), DType::i32, {kN}), a, first);
    done.record(first);
    done.hold(second);
    copy(a, b, second);
    copy(b, Tensor(seen.data(), DType::i32, {kN}), second);
    second.wait();
    EXPECT_EQ(seen, values) << "seed " << seed;
    first.wait();
  }
}

TEST_F(Streams, WaitsAreCounted) {
  Stream stream(Device::cuda);
  const int64_t before = device_work().waits;
  stream.wait();
  EXPECT_EQ(device_work().waits, before + 1);
  Stream(Device::cpu).wait();
  EXPECT_EQ(device_work().waits, before + 1);
}

TEST_F(Streams, PiecesOfADevicesTensorComeInOrderAndGoBack) {
  constexpr int64_t kN = 1000;  // in pieces of 256
  Arena arena("test", 8192, Device::cuda);
  const Tensor there = allocate(arena, DType::i32, {10, 100});
  HostPieces pieces(1024);
  pieces.write(there, [](const Tensor& piece, int64_t first) {
    EXPECT_LE(piece.numel(), 256);
    std::iota(piece.data<int32_t>(), piece.data<int32_t>() + piece.numel(), static_cast<int32_t>(first));
  });
  std::vector<int32_t> back;
  pieces.read(there, [&](const Tensor& piece, int64_t first) {
    EXPECT_EQ(first, static_cast<int64_t>(back.size()));
    back.insert(back.end(), piece.data<int32_t>(), piece.data<int32_t>() + piece.numel());
  });
  EXPECT_EQ(back, counted(kN, 0));
}

TEST_F(Streams, BatchesReachTheDeviceAlthoughTheirMemoryIsUsedAgain) {
  constexpr int64_t kTokens = 12;
  Arena activations("activations", 1 << 14, Device::cuda), gradients("gradients", 1 << 10, Device::cuda);
  Arena workspace("workspace", 1 << 10, Device::cuda);
  Arena kept("test", 1 << 12, Device::cuda);
  Stream stream(Device::cuda);
  Tape tape(activations, gradients, workspace, stream);
  train::BatchUpload upload(Device::cuda, kTokens);
  std::vector<int32_t> tokens(kTokens), targets(kTokens);
  std::vector<Tensor> seen;
  const int64_t waits = device_work().waits;
  for (int32_t i = 0; i < 5; ++i) {
    tape.begin({});
    tokens = counted(kTokens, 100 * i), targets = counted(kTokens, 100 * i + 50);
    const model::TokenBatch there = upload(tape, {tokens.data(), targets.data(), 3, 4});
    EXPECT_EQ(there.positions, nullptr);
    EXPECT_EQ(there.length, 4);
    for (const int32_t* table : {there.tokens, there.targets}) {
      seen.push_back(allocate(kept, DType::i32, {kTokens}));
      copy(Tensor(const_cast<int32_t*>(table), DType::i32, {kTokens}, Device::cuda), seen.back(), stream);
    }
  }
  EXPECT_EQ(device_work().waits, waits);
  for (int32_t i = 0; i < 5; ++i) {
    const auto at = static_cast<size_t>(2 * i);
    EXPECT_EQ(on_host(seen[at].data<int32_t>(), kTokens, stream), counted(kTokens, 100 * i));
    EXPECT_EQ(on_host(seen[at + 1].data<int32_t>(), kTokens, stream), counted(kTokens, 100 * i + 50));
  }
}

TEST_F(Streams, AMetaDeviceTakesAsMuchAsTheOneItStandsFor) {
  Arena meta("meta", Arena::kUnlimited, Device::meta_cuda), cuda("cuda", 1 << 12, Device::cuda);
  for (Arena* arena : {&meta, &cuda}) {
    allocate(*arena, DType::f32, {33});
    arena->take<double>(1000);  // the host's, real on both
    allocate(*arena, DType::bf16, {0});
  }
  EXPECT_EQ(meta.used(), cuda.used());
  int64_t* real = meta.take<int64_t>(2);
  real[0] = real[1] = 5;
  meta.reset();
  EXPECT_EQ(meta.used(), 0);
}

}  // namespace
}  // namespace ziggurat::emulation
