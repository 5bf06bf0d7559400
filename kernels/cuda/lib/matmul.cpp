#include <algorithm>
#include <type_traits>

#include <kernels/cuda/lib/matmul.h>
#include <kernels/cuda/lib/plan_cache.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

namespace {

template <class T>
constexpr MatmulType kMatmulType = std::is_same_v<T, bf16> ? MatmulType::bf16 : MatmulType::f32;

int alignment(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address);
  if (bits == 0) return 0;
  return static_cast<int>(std::min<uintptr_t>(bits & (~bits + 1), MatmulSpec::kMostAlignment));
}

}  // namespace

template <class T, class TC>
bool multiply(const GemmArgs<T, TC>& g, const Epilogue<TC>& epilogue, Arena& workspace, Stream& stream) {
  const ArenaScope scope(workspace);
  if (DryRun::on()) {  // without an epilogue, if the library has not that one, it would take no more
    take_scratch(most_matmul_workspace(), workspace);
    return true;
  }
  const MatmulSpec spec{.transpose_a = g.transpose_a,
                        .transpose_b = g.transpose_b,
                        .m = g.m,
                        .n = g.n,
                        .k = g.k,
                        .lda = g.lda,
                        .ldb = g.ldb,
                        .ldc = g.ldc,
                        .operands = kMatmulType<T>,
                        .result = kMatmulType<TC>,
                        .accumulate = g.accumulate,
                        .bias = epilogue.bias != nullptr,
                        .gelu = epilogue.z != nullptr,
                        .a_alignment = alignment(g.a),
                        .b_alignment = alignment(g.b),
                        .c_alignment = alignment(g.c),
                        .bias_alignment = alignment(epilogue.bias),
                        .z_alignment = alignment(epilogue.z)};
  MatmulPlan* const plan = plan_of<1024>(spec, make_matmul_plan);
  if (plan == nullptr) {
    check(spec.bias || spec.gelu, ErrorKind::device,
          "[gemm] the GPU's matrix library has no product [{}, {}] of {} terms, {} to {}, rows {}, {} and {} "
          "elements apart, at multiples of {}, {} and {} bytes",
          g.m, g.n, g.k, spec.operands == MatmulType::bf16 ? "bf16" : "f32",
          spec.result == MatmulType::bf16 ? "bf16" : "f32", g.lda, g.ldb, g.ldc, spec.a_alignment,
          spec.b_alignment, spec.c_alignment);
    return false;
  }
  plan->run({g.a, g.b, g.c, epilogue.bias, epilogue.z}, take_scratch(plan->workspace_bytes(), workspace),
            stream);
  return true;
}

template bool multiply(const GemmArgs<float, float>&, const Epilogue<float>&, Arena&, Stream&);
template bool multiply(const GemmArgs<bf16, bf16>&, const Epilogue<bf16>&, Arena&, Stream&);
template bool multiply(const GemmArgs<bf16, float>&, const Epilogue<float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
