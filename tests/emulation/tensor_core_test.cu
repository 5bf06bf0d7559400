// Products of kernels/cuda/device/mma.h against sums by the definition.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/mma.h>

#include "tests/emulation/emulator_tests.h"

namespace ziggurat::emulation {
namespace {

using namespace kernels;

using TensorCore = EmulatedTest;
constexpr int kLd = 24;  // of the operands in shared memory
constexpr size_t kShared = 2 * 16 * kLd * sizeof(bf16);

enum class Form { plain, a_transposed, b_transposed, from_c };

// out [16, 16] = a b, a from x [16, 16] and b from y [16, 16]; Form::from_c: (x y) y
__global__ void multiply_kernel(float* out, const bf16* x, const bf16* y, Form form) {
  bf16 *const a = dynamic_shared<bf16>(), *const b = a + 16 * kLd;
  const int lane = lane_of_warp();
  for (int i = lane; i < 16 * 16; i += static_cast<int>(blockDim.x)) {
    a[i / 16 * kLd + i % 16] = x[i];
    b[i / 16 * kLd + i % 16] = y[i];
  }
  __syncwarp();
  const MmaA left = form == Form::a_transposed ? load_a_transposed(a, kLd) : load_a(a, kLd);
  const MmaB2 right = form == Form::b_transposed ? load_b_transposed(b, kLd) : load_b(b, kLd);
  float c[2][4] = {};
  mma(c[0], left, right.left);
  mma(c[1], left, right.right);
  if (form == Form::from_c) {
    const MmaA again = as_a(c[0], c[1]);
    for (auto& half : c) {
      for (float& value : half) value = 0;
    }
    mma(c[0], again, right.left);
    mma(c[1], again, right.right);
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i)
      out[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = c[half][i];
  }
}

// Small integers, whose sums are exact, and of x y too in bf16.
std::vector<bf16> integers(unsigned factor, int range) {
  std::vector<bf16> values;
  for (unsigned i = 0; i < 256; ++i) {
    values.emplace_back(static_cast<float>(static_cast<int>(i * i * factor / 7 % 5) % range - range / 2));
  }
  return values;
}

std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, bool a_transposed,
                           bool b_transposed) {
  std::vector<float> c(256);
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 16; ++j) {
      for (size_t k = 0; k < 16; ++k) {
        c[i * 16 + j] +=
            a[a_transposed ? k * 16 + i : i * 16 + k] * b[b_transposed ? j * 16 + k : k * 16 + j];
      }
    }
  }
  return c;
}

TEST_F(TensorCore, ProductsAreThoseOfTheDefinition) {
  const std::vector<bf16> x = integers(3, 3), y = integers(11, 5);
  const std::vector<float> a(x.begin(), x.end()), b(y.begin(), y.end());
  const DeviceArray<bf16> d_x(x), d_y(y);
  const DeviceArray<float> out(256);
  const auto run = [&](Form form) {
    expect_success(start(multiply_kernel, 1, 32, kShared, nullptr, out.data(), d_x.data(), d_y.data(), form));
    return out.get();
  };
  const std::vector<float> plain = product(a, b, false, false);
  EXPECT_EQ(run(Form::plain), plain);
  EXPECT_EQ(run(Form::a_transposed), product(a, b, true, false));
  EXPECT_EQ(run(Form::b_transposed), product(a, b, false, true));
  EXPECT_EQ(run(Form::from_c), product(plain, b, false, false));
}

TEST_F(TensorCore, NeedsAWholeWarp) {
  expect_fault({"needs a warp of 32 threads"}, multiply_kernel, 1, 16, kShared, leaked<float>(256),
               leaked<bf16>(256), leaked<bf16>(256), Form::plain);
}

}  // namespace
}  // namespace ziggurat::emulation
