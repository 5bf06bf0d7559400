// Sizes and addresses of the products of all groups, which the library reads on the device: so no host has to
// know how many rows a group has. One thread a group.
#include <kernels/cuda/device/gradient_rows.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/lib/grouped_matmul.h>
#include <kernels/cuda/lib/plan_cache.h>

#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ int64_t this_group() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

__device__ __forceinline__ void put(const GroupedProducts& p, int64_t group, int64_t m, int64_t n, int64_t k,
                                    int64_t lda, int64_t ldb) {
  p.sizes[group] = {static_cast<int32_t>(m), static_cast<int32_t>(n), static_cast<int32_t>(k)};
  p.lda[group] = lda;
  p.ldb[group] = ldb;
  p.ldc[group] = n;
}

__global__ void describe_forward_kernel(GroupedLinearArgs<bf16> g, GroupedProducts p) {
  const int64_t group = this_group();
  if (group >= g.groups.count()) return;
  const int64_t expert = group / g.groups.sources, begin = g.groups.offsets[group];
  put(p, group, g.groups.offsets[group + 1] - begin, g.out, g.in, g.in, g.in);
  p.a[group] = g.x + begin * g.in;
  p.b[group] = g.weight + expert * g.out * g.in;
  p.c[group] = g.z + begin * g.out;
  if (p.bias != nullptr) p.bias[group] = g.bias + expert * g.out;
}

__global__ void describe_dx_kernel(GroupedLinearArgs<bf16> f, const bf16* dz, bf16* dx, GroupedProducts p) {
  const int64_t group = this_group();
  if (group >= f.groups.count()) return;
  const int64_t expert = group / f.groups.sources, begin = f.groups.offsets[group];
  put(p, group, f.groups.offsets[group + 1] - begin, f.in, f.out, f.out, f.in);
  p.a[group] = dz + begin * f.out;
  p.b[group] = f.weight + expert * f.out * f.in;
  p.c[group] = dx + begin * f.in;
}

__global__ void describe_dweight_kernel(GroupedLinearArgs<bf16> f, const bf16* dz, float* dweight,
                                        int64_t stride, GroupedProducts p) {
  const int64_t index = this_group();
  if (index >= gradients(f.groups, stride)) return;
  const GradientRows at = gradient_rows(f.groups, index, f.out * f.in, stride);
  const int64_t rows = at.end - at.begin;
  put(p, index, rows == 0 ? 0 : f.out, f.in, rows, f.out, f.in);  // a sum of no rows is no product
  p.a[index] = dz + at.begin * f.out;
  p.b[index] = f.x + at.begin * f.in;
  p.c[index] = dweight + at.offset;
}

// Zeros for experts without rows, of which the products write nothing. size: a multiple of 4.
constexpr int kBlocksOfMatrix = 32;
__global__ void clear_without_rows_kernel(RowGroups groups, float* dweight, int64_t size) {
  const GradientRows at = gradient_rows(groups, blockIdx.y, size, 0);
  if (at.begin != at.end) return;
  for (int64_t i = this_group() * 4; i < size; i += int64_t{gridDim.x} * blockDim.x * 4) {
    store(dweight + at.offset + i, Values<float, 4>{});
  }
}

GroupedProducts take_products(int64_t groups, bool bias, Arena& workspace) {
  const auto addresses = [&] { return workspace.take_on_device<void*>(groups); };
  GroupedProducts p;
  p.sizes = workspace.take_on_device<GroupedProducts::Size>(groups);
  p.a = const_cast<const bf16**>(reinterpret_cast<bf16**>(addresses()));
  p.b = const_cast<const bf16**>(reinterpret_cast<bf16**>(addresses()));
  p.c = addresses();
  if (bias) p.bias = const_cast<const float**>(reinterpret_cast<float**>(addresses()));
  p.lda = workspace.take_on_device<int64_t>(groups);
  p.ldb = workspace.take_on_device<int64_t>(groups);
  p.ldc = workspace.take_on_device<int64_t>(groups);
  return p;
}

// describe(products) queues what fills them.
template <class F>
bool run(const GroupedSpec& spec, Arena& workspace, Stream& stream, const F& describe) {
  if (most_grouped_workspace() == 0) return false;
  const ArenaScope scope(workspace);
  const GroupedProducts products = take_products(spec.groups, spec.bias, workspace);
  if (DryRun::on()) {
    take_scratch(most_grouped_workspace(), workspace);
    return false;
  }
  GroupedPlan* const plan = plan_of<64>(spec, make_grouped_plan);
  if (plan == nullptr) return false;
  describe(products);
  plan->run(products, take_scratch(plan->workspace_bytes(), workspace), stream);
  return true;
}

// Whether addresses and rows lie as the library asks.
bool suits_a_library(const GroupedLinearArgs<bf16>& g) {
  return g.rows > 0 && fit_lanes(g.in, g.x, g.weight) && fit_lanes(g.out, g.z);
}
bool suits_a_library(const GroupedLinearArgs<bf16>& f, const bf16* dz) {
  return f.rows > 0 && fit_lanes(f.in, f.x, f.weight) && fit_lanes(f.out, dz);
}

}  // namespace

bool multiply_groups_by_library(const GroupedLinearArgs<bf16>& g, Arena& workspace, Stream& stream) {
  if (!suits_a_library(g)) return false;
  const int64_t groups = g.groups.count();
  const GroupedSpec spec{
      .pass = GroupedPass::forward, .groups = static_cast<int>(groups), .bias = g.bias != nullptr};
  return run(spec, workspace, stream, [&](const GroupedProducts& products) {
    launch(describe_forward_kernel, blocks_for(groups, kThreads), kThreads, 0, stream, g, products);
  });
}

bool dx_of_groups_by_library(const GroupedLinearGradArgs<bf16>& g, const bf16* dz, Arena& workspace,
                             Stream& stream) {
  const GroupedLinearArgs<bf16>& f = g.forward;
  if (!suits_a_library(f, dz) || !fit_lanes(f.in, g.dx)) return false;
  const int64_t groups = f.groups.count();
  const GroupedSpec spec{
      .pass = GroupedPass::dx, .groups = static_cast<int>(groups), .accumulate = g.accumulate_dx};
  return run(spec, workspace, stream, [&](const GroupedProducts& products) {
    launch(describe_dx_kernel, blocks_for(groups, kThreads), kThreads, 0, stream, f, dz, g.dx, products);
  });
}

bool dweight_of_groups_by_library(const GroupedLinearGradArgs<bf16>& g, const bf16* dz, Arena& workspace,
                                  Stream& stream) {
  const GroupedLinearArgs<bf16>& f = g.forward;
  if (!suits_a_library(f, dz) || !fit_lanes(f.in, g.dweight) || g.dweight_stride % kLanes<float> != 0)
    return false;
  const int64_t groups = gradients(f.groups, g.dweight_stride);
  const GroupedSpec spec{
      .pass = GroupedPass::dweight, .groups = static_cast<int>(groups), .accumulate = !g.overwrite_dweight};
  return run(spec, workspace, stream, [&](const GroupedProducts& products) {
    launch(describe_dweight_kernel, blocks_for(groups, kThreads), kThreads, 0, stream, f, dz, g.dweight,
           g.dweight_stride, products);
    if (g.overwrite_dweight) {
      launch(clear_without_rows_kernel, dim3(kBlocksOfMatrix, static_cast<unsigned>(groups)), kThreads, 0,
             stream, f.groups, g.dweight, f.out * f.in);
    }
  });
}

}  // namespace ziggurat::kernels
