// Matrix products of a library, as objects that do not say which: cuBLASLt's in a build for GPUs
// (cublas_lt.cpp), plain loops on the emulated device (tests/emulation/lib).
#pragma once

#include <compare>
#include <cstdint>
#include <memory>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::kernels {

// What becomes of the sums of a product before they are stored.
template <class TC>
struct Epilogue {
  const float* bias = nullptr;  // [n], added to every row; or null
  // [m, n] with rows as far apart as C's: the sums, and C is gelu(sums), in its tanh form. Or null: C is the
  // sums. Not with accumulate.
  TC* z = nullptr;
};

// C = op(A) op(B) as gemm() takes it, queued on the stream. Returns false, and has done nothing, where the
// library has no such product, which may be said of any epilogue; without one it is Error(device).
// m, n and k are not zero. Instantiated for (float, float), (bf16, bf16), (bf16, float).
template <class T, class TC>
bool multiply(const GemmArgs<T, TC>& args, const Epilogue<TC>& epilogue, Arena& workspace, Stream& stream);

// The rest is between multiply() and a library.

enum class MatmulType : uint8_t { f32, bf16 };

// A product without its addresses: what a library chooses an algorithm by.
struct MatmulSpec {
  static constexpr int kMostAlignment = 16;  // bytes that one thread can load at once

  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
  MatmulType operands = MatmulType::f32, result = MatmulType::f32;  // sums are f32
  bool accumulate = false, bias = false, gelu = false;
  // Bytes, up to kMostAlignment, of which addresses are multiples. 0: there is no such address.
  int a_alignment = 0, b_alignment = 0, c_alignment = 0, bias_alignment = 0, z_alignment = 0;

  auto operator<=>(const MatmulSpec&) const = default;
};

struct MatmulAddresses {
  const void *a = nullptr, *b = nullptr;
  void* c = nullptr;
  const float* bias = nullptr;
  void* z = nullptr;
};

// A product that a library is ready to run. For one thread at a time.
class MatmulPlan {
 public:
  static constexpr int64_t kMostWorkspaceBytes = int64_t{32} << 20;  // what cuBLAS itself takes on an H100

  virtual ~MatmulPlan() = default;
  virtual int64_t workspace_bytes() const = 0;  // up to kMostWorkspaceBytes
  virtual void run(const MatmulAddresses& addresses, void* workspace, Stream& stream) = 0;
};

// Null: the library has no such product. Error(device) with the library's own words.
std::unique_ptr<MatmulPlan> make_matmul_plan(const MatmulSpec& spec);

// What no plan's workspace_bytes() goes beyond: what is planned with, where no device is to be asked.
int64_t most_matmul_workspace();

}  // namespace ziggurat::kernels
