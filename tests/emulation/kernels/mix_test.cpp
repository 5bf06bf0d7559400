#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/mix.h>

namespace ziggurat::emulation {
namespace {

struct MixCase {
  int64_t rows, cols;
  size_t shift;  // elements from an address that vectors can be loaded from
};
void PrintTo(const MixCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols << "+" << c.shift; }

class EmulatedMix : public EmulatedTest, public testing::WithParamInterface<MixCase> {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

template <class T>
void expect_forward(const MixCase& c, Stream& cpu, Stream& cuda) {
  const auto n = static_cast<size_t>(c.rows * c.cols);
  const auto a = values<T>("a", n), b = values<T>("b", n);
  const auto logits = values<float>("logits", static_cast<size_t>(2 * c.rows), 2.0);
  std::vector<T> want(n);
  kernels::mix_forward<Device::cpu>(
      kernels::MixArgs<T>{c.rows, c.cols, a.data(), b.data(), logits.data(), want.data()}, cpu);
  const DeviceTensor<T> d_a(a, c.shift), d_b(b, c.shift), d_y(std::vector<T>(n), c.shift);
  const DeviceTensor<float> d_logits(logits, 0);
  kernels::mix_forward<Device::cuda>(
      kernels::MixArgs<T>{c.rows, c.cols, d_a.data(), d_b.data(), d_logits.data(), d_y.data()}, cuda);
  expect_near(d_y.get(), want, "y", 2, 4);
}

TEST_P(EmulatedMix, ForwardEqualsTheCpu) {
  expect_forward<float>(GetParam(), cpu, cuda);
  expect_forward<bf16>(GetParam(), cpu, cuda);
}

enum class Gradients { all, a, b, logits, one_tensor };

template <class T>
void expect_backward(const MixCase& c, Gradients wanted, bool accumulate, Stream& cpu, Stream& cuda) {
  const auto n = static_cast<size_t>(c.rows * c.cols), rows = static_cast<size_t>(c.rows);
  const auto a = values<T>("a", n), b = values<T>("b", n), dy = values<T>("dy", n);
  const auto logits = values<float>("logits", 2 * rows, 2.0);
  auto da = values<T>("da", n), db = values<T>("db", n);
  auto dlogits = values<float>("dlogits", 2 * rows);
  const DeviceTensor<T> d_a(a, c.shift), d_b(b, c.shift), d_dy(dy, c.shift), d_da(da, c.shift),
      d_db(db, c.shift);
  const DeviceTensor<float> d_logits(logits, 0), d_dlogits(dlogits, 0);
  kernels::MixGradArgs<T> args{c.rows,    c.cols,     a.data(),  b.data(),   logits.data(),  dy.data(),
                               da.data(), accumulate, db.data(), accumulate, dlogits.data(), accumulate};
  kernels::MixGradArgs<T> device_args{c.rows,          c.cols,      d_a.data(),       d_b.data(),
                                      d_logits.data(), d_dy.data(), d_da.data(),      accumulate,
                                      d_db.data(),     accumulate,  d_dlogits.data(), accumulate};
  for (auto* g : {&args, &device_args}) {
    if (wanted != Gradients::all && wanted != Gradients::logits) g->dlogits = nullptr;
    if (wanted == Gradients::a || wanted == Gradients::logits) g->db = nullptr;
    if (wanted == Gradients::b || wanted == Gradients::logits) g->da = nullptr;
    if (wanted == Gradients::one_tensor) {
      g->db = g->da;
      g->accumulate_db = true;
    }
  }
  kernels::mix_backward<Device::cpu>(args, cpu);
  kernels::mix_backward<Device::cuda>(device_args, cuda);
  // A value near zero may be what is left of a rounded first summand.
  const double magnitude = sizeof(T) == 2 && wanted == Gradients::one_tensor ? 4096 : 16;
  expect_near(d_da.get(), da, "da", 1, magnitude);
  expect_near(d_db.get(), db, "db", 1, magnitude);
  expect_near(d_dlogits.get(), dlogits, "dlogits", static_cast<double>(c.cols), 4);
}

TEST_P(EmulatedMix, BackwardEqualsTheCpu) {
  for (const Gradients wanted :
       {Gradients::all, Gradients::a, Gradients::b, Gradients::logits, Gradients::one_tensor}) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << "gradients " << static_cast<int>(wanted) << ", accumulate " << accumulate);
      expect_backward<float>(GetParam(), wanted, accumulate, cpu, cuda);
      expect_backward<bf16>(GetParam(), wanted, accumulate, cpu, cuda);
    }
  }
}

// Around a load of 16 bytes, and a row that is more than one pass of a block.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedMix,
                         testing::Values(MixCase{0, 3, 0}, MixCase{2, 0, 0}, MixCase{1, 1, 0},
                                         MixCase{5, 7, 0}, MixCase{5, 8, 0}, MixCase{3, 64, 1},
                                         MixCase{3, 1040, 0}, MixCase{2, 517, 0}));

class EmulatedMixEdges : public EmulatedTest {};

TEST_F(EmulatedMixEdges, FarLogitsPickOneBranch) {
  const std::vector<float> a = values<float>("a", 6), b = values<float>("b", 6);
  const DeviceArray<float> d_a(a), d_b(b), logits(std::vector<float>{1000, 0, 0, 1000}), y(6);
  Stream stream(Device::cuda);
  kernels::mix_forward<Device::cuda>(
      kernels::MixArgs<float>{2, 3, d_a.data(), d_b.data(), logits.data(), y.data()}, stream);
  EXPECT_EQ(y.get(), (std::vector<float>{a[0], a[1], a[2], b[3], b[4], b[5]}));
}

// The floor of the contract: every value once, by full sectors; and the logits.
TEST_F(EmulatedMixEdges, BytesAreTheFloor) {
  constexpr int64_t kRows = 3, kCols = 1024, kN = kRows * kCols;
  const DeviceArray<bf16> a(values<bf16>("a", kN)), b(values<bf16>("b", kN)), dy(values<bf16>("dy", kN)),
      da(kN), db(kN);
  const DeviceArray<float> logits(values<float>("logits", 2 * kRows)), dlogits(2 * kRows);
  Stream stream(Device::cuda);
  kernels::mix_backward<Device::cuda>(
      kernels::MixGradArgs<bf16>{kRows, kCols, a.data(), b.data(), logits.data(), dy.data(), da.data(), false,
                                 db.data(), false, dlogits.data(), false},
      stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts did = counts("mix_backward_kernel<bf16, 8>");
  constexpr int64_t kThreads = 128;
  // Each thread reads the row's two logits: one sector a request.
  EXPECT_EQ(did.loaded_bytes, 3 * kN * 2 + kRows * kThreads * 8);
  EXPECT_EQ(did.load_sectors, 3 * kN * 2 / 32 + kRows * (kThreads / 32) * 2);
  EXPECT_EQ(did.stored_bytes, 2 * kN * 2 + kRows * 8);
}

}  // namespace
}  // namespace ziggurat::emulation
