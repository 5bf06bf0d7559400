// cuBLASLt's products. Its matrices are column-major: in the same memory a row-major C = op(A) op(B) is its
// C^T = op(B)^T op(A)^T, so that A and B change places, and a bias, which it adds to columns of C^T, is one
// of our rows.
//
// What it does not have, by its documentation: the exact gelu (its GELU is the tanh form); a bias of another
// type than C's, so none in f32 beside C in bf16; z with rows that are no multiple of 8 elements apart; and
// column sums that are added to others (BGRADB overwrites).
#include <type_traits>

#include <cublasLt.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/lib/matmul.h>

#include <ziggurat/core/error.h>

namespace ziggurat::kernels {

namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, ErrorKind::device, "[cublasLt] {}: {} ({})", what,
        cublasLtGetStatusString(status), cublasLtGetStatusName(status));
}

template <auto kDestroy>
struct Destroy {
  template <class T>
  void operator()(T* handle) const {
    static_cast<void>(kDestroy(handle));
  }
};
template <class Handle, auto kDestroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy>>;

using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// The calling thread's, for the device that was current when it first asked.
cublasLtHandle_t library() {
  thread_local const Library handle = [] {
    cublasLtHandle_t made = nullptr;
    check_cublas(cublasLtCreate(&made), "starting");
    return Library(made);
  }();
  return handle.get();
}

cudaDataType_t type_of(MatmulType type) { return type == MatmulType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// A row-major matrix [rows, cols] is a column-major one [cols, rows].
MatrixLayout layout(MatmulType type, int64_t rows, int64_t cols, int64_t ld) {
  cublasLtMatrixLayout_t made = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&made, type_of(type), static_cast<uint64_t>(cols),
                                          static_cast<uint64_t>(rows), ld),
               "describing a matrix");
  return MatrixLayout(made);
}

template <class V>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const V& value) {
  check_cublas(cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof value),
               "describing a product");
}
template <class V>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const V& value) {
  check_cublas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
               "asking for an algorithm");
}

cublasLtEpilogue_t epilogue_of(const MatmulSpec& spec) {
  if (spec.gelu) return spec.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  return spec.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

// CUBLAS_COMPUTE_32F: f32 is multiplied as f32, not as TF32; bf16 exactly, summed in f32.
Operation operation_of(const MatmulSpec& spec) {
  cublasLtMatmulDesc_t made = nullptr;
  check_cublas(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  Operation operation(made);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, spec.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, spec.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(spec));
  // Until a run sets the addresses, ones that stand for their alignment.
  if (spec.bias) {
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<uintptr_t>(spec.bias_alignment));
  }
  if (spec.gelu) {
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, spec.ldc);
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<uintptr_t>(spec.z_alignment));
  }
  return operation;
}

Preference preference_of(const MatmulSpec& spec) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "asking for an algorithm");
  Preference preference(made);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<uint64_t>(MatmulPlan::kMostWorkspaceBytes));
  // Sums of parts are added up in f32, not in C's type.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  const auto alignment = [&](cublasLtMatmulPreferenceAttributes_t attribute, int bytes) {
    set(preference, attribute, static_cast<uint32_t>(bytes));
  };
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, spec.b_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, spec.a_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, spec.c_alignment);
  alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, spec.c_alignment);
  return preference;
}

class CublasLtPlan : public MatmulPlan {
 public:
  explicit CublasLtPlan(const MatmulSpec& spec)
      : spec_(spec),
        operation_(operation_of(spec)),
        a_(layout(spec.operands, spec.transpose_a ? spec.k : spec.m, spec.transpose_a ? spec.m : spec.k,
                  spec.lda)),
        b_(layout(spec.operands, spec.transpose_b ? spec.n : spec.k, spec.transpose_b ? spec.k : spec.n,
                  spec.ldb)),
        c_(layout(spec.result, spec.m, spec.n, spec.ldc)) {}

  // Returns whether the library has an algorithm.
  bool choose() {
    const Preference preference = preference_of(spec_);
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library(), operation_.get(), b_.get(), a_.get(), c_.get(), c_.get(),
                                       preference.get(), 1, &result, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
    check_cublas(status, "choosing an algorithm");
    if (count == 0 || result.state != CUBLAS_STATUS_SUCCESS) return false;
    algorithm_ = result.algo;
    workspace_bytes_ = static_cast<int64_t>(result.workspaceSize);
    return true;
  }

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const MatmulAddresses& at, void* workspace, Stream& stream) override {
    if (spec_.bias) set(operation_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, at.bias);
    if (spec_.gelu) set(operation_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, at.z);
    const float alpha = 1, beta = spec_.accumulate ? 1 : 0;
    check_cublas(cublasLtMatmul(library(), operation_.get(), &alpha, at.b, b_.get(), at.a, a_.get(), &beta,
                                at.c, c_.get(), at.c, c_.get(), &algorithm_, workspace,
                                static_cast<size_t>(workspace_bytes_), queue_of(stream)),
                 "starting a product");
  }

 private:
  MatmulSpec spec_;
  Operation operation_;
  MatrixLayout a_, b_, c_;
  cublasLtMatmulAlgo_t algorithm_{};
  int64_t workspace_bytes_ = 0;
};

}  // namespace

std::unique_ptr<MatmulPlan> make_matmul_plan(const MatmulSpec& spec) {
  if (spec.gelu && spec.ldc % 8 != 0) return nullptr;
  auto plan = std::make_unique<CublasLtPlan>(spec);
  return plan->choose() ? std::move(plan) : nullptr;
}

int64_t most_matmul_workspace() { return MatmulPlan::kMostWorkspaceBytes; }

}  // namespace ziggurat::kernels
