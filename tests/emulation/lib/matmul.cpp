// The products of the emulated device's matrix library, in f64: plain loops, with the limits that cuBLASLt
// states, and scratch that it overwrites.
#include <cmath>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/lib/matmul.h>
#include <kernels/cuda/lib/plan_cache.h>

#include "tests/emulation/emulated_device.h"

namespace ziggurat::kernels {

namespace {

using emulation::check_device_memory;
using emulation::KernelError;

double gelu_tanh(double z) {
  return 0.5 * z * (1 + std::tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)));
}

void check_alignment(const void* address, int bytes, const char* what) {
  if (bytes > 0 && reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) != 0) {
    throw KernelError(fmt::format("matmul: {} is no multiple of {} bytes, as its plan says", what, bytes));
  }
}

template <class T>
void check_matrix(const void* address, int64_t rows, int64_t cols, int64_t ld, int alignment,
                  const char* what) {
  if (ld < cols) throw KernelError(fmt::format("matmul: rows of {} overlap", what));
  constexpr int64_t kBytes = sizeof(T);
  check_device_memory(address, rows, cols * kBytes, ld * kBytes, fmt::format("matmul: {}", what));
  check_alignment(address, alignment, what);
}

template <class T, class TC>
void compute(const MatmulSpec& s, const MatmulAddresses& at) {
  check_matrix<T>(at.a, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.lda, s.a_alignment, "A");
  check_matrix<T>(at.b, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.ldb, s.b_alignment, "B");
  check_matrix<TC>(at.c, s.m, s.n, s.ldc, s.c_alignment, "C");
  if (s.bias) check_matrix<float>(at.bias, 1, s.n, s.n, s.bias_alignment, "bias");
  if (s.gelu) check_matrix<TC>(at.z, s.m, s.n, s.ldc, s.z_alignment, "z");

  const auto *a = static_cast<const T*>(at.a), *b = static_cast<const T*>(at.b);
  auto *c = static_cast<TC*>(at.c), *z = static_cast<TC*>(at.z);
  const int64_t a_row = s.transpose_a ? 1 : s.lda, a_term = s.transpose_a ? s.lda : 1;
  const int64_t b_term = s.transpose_b ? 1 : s.ldb, b_column = s.transpose_b ? s.ldb : 1;
  std::vector<double> sums(static_cast<size_t>(s.n));
  for (int64_t i = 0; i < s.m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t p = 0; p < s.k; ++p) {
      const double factor = a[i * a_row + p * a_term];
      const T* const row = b + p * b_term;
      for (int64_t j = 0; j < s.n; ++j) sums[static_cast<size_t>(j)] += factor * double(row[j * b_column]);
    }
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = sums[static_cast<size_t>(j)];
      TC& result = c[i * s.ldc + j];
      if (s.accumulate) sum += double(result);
      if (s.bias) sum += double(at.bias[j]);
      if (s.gelu) z[i * s.ldc + j] = TC(sum);
      result = TC(s.gelu ? gelu_tanh(sum) : sum);
    }
  }
}

const char* name_of(MatmulType type) { return type == MatmulType::bf16 ? "bf16" : "float"; }

class EmulatedPlan : public MatmulPlan {
 public:
  explicit EmulatedPlan(const MatmulSpec& spec) : spec_(spec) {}
  int64_t workspace_bytes() const override { return most_matmul_workspace(); }

  void run(const MatmulAddresses& at, void* workspace, Stream& stream) override {
    const auto call = [spec = spec_, at, workspace, bytes = workspace_bytes()] {
      check_device_memory(workspace, 1, bytes, bytes, "matmul: its workspace");
      check_alignment(workspace, kPlanWorkspaceAlignment, "its workspace");
      std::memset(workspace, 0xff, static_cast<size_t>(bytes));
      if (spec.operands == MatmulType::f32) return compute<float, float>(spec, at);
      if (spec.result == MatmulType::f32) return compute<bf16, float>(spec, at);
      compute<bf16, bf16>(spec, at);
    };
    const std::string name = fmt::format("matmul<{}, {}>", name_of(spec_.operands), name_of(spec_.result));
    check_cuda(emulation::enqueue_library_call(queue_of(stream), name, call), "starting a product");
  }

 private:
  MatmulSpec spec_;
};

}  // namespace

std::unique_ptr<MatmulPlan> make_matmul_plan(const MatmulSpec& spec) {
  if (spec.bias && spec.result != MatmulType::f32) return nullptr;
  if (spec.gelu && spec.ldc % 8 != 0) return nullptr;
  return std::make_unique<EmulatedPlan>(spec);
}

int64_t most_matmul_workspace() { return 512; }

}  // namespace ziggurat::kernels
