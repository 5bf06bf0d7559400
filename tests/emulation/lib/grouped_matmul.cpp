// Grouped products in f64, from sizes and addresses on the device, with the limits that CUTLASS states.
#include "tests/emulation/lib/grouped_matmul.h"

#include <cstring>

#include <fmt/format.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/lib/grouped_matmul.h>
#include <kernels/cuda/lib/plan_cache.h>

#include "tests/emulation/emulated_device.h"

namespace ziggurat::kernels {

namespace {

using emulation::check_device_memory;
using emulation::KernelError;

constexpr const char* kNames[] = {"forward", "dx", "dweight"};

void check_matrix(const void* address, int64_t rows, int64_t row_bytes, int64_t distance, const char* what) {
  check_device_memory(address, rows, row_bytes, distance, fmt::format("grouped product: {}", what));
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0 || distance % 16 != 0 || distance < row_bytes) {
    throw KernelError(
        fmt::format("grouped product: rows of {} are at no multiples of 16 bytes, or overlap", what));
  }
}

template <class TC>
void multiply_group(const GroupedSpec& spec, const GroupedProducts& p, int group) {
  const auto [m, n, k] = p.sizes[group];
  if (m == 0) return;
  if (m < 0 || n <= 0 || k <= 0) throw KernelError(fmt::format("grouped product of [{}, {}, {}]", m, n, k));
  const bool a_by_m = spec.pass == GroupedPass::dweight, b_by_k = spec.pass == GroupedPass::forward;
  const int64_t lda = p.lda[group], ldb = p.ldb[group], ldc = p.ldc[group];
  const bf16 *const a = p.a[group], *const b = p.b[group];
  auto* const c = static_cast<TC*>(p.c[group]);
  check_matrix(a, a_by_m ? k : m, (a_by_m ? m : k) * 2, lda * 2, "A");
  check_matrix(b, b_by_k ? n : k, (b_by_k ? k : n) * 2, ldb * 2, "B");
  constexpr auto kSize = static_cast<int64_t>(sizeof(TC));
  check_matrix(c, m, n * kSize, ldc * kSize, "C");
  if (spec.bias) check_device_memory(p.bias[group], 1, n * 4, n * 4, "grouped product: bias");
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = spec.bias ? double(p.bias[group][j]) : spec.accumulate ? double(c[i * ldc + j]) : 0.0;
      for (int64_t t = 0; t < k; ++t) {
        sum += double(a[a_by_m ? t * lda + i : i * lda + t]) * double(b[b_by_k ? j * ldb + t : t * ldb + j]);
      }
      c[i * ldc + j] = TC(sum);
    }
  }
}

template <class T>
void check_array(const T* array, int groups, const char* what) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(T));
  check_device_memory(array, groups, kSize, kSize, fmt::format("grouped product: {}", what));
}

class EmulatedGroupedPlan : public GroupedPlan {
 public:
  explicit EmulatedGroupedPlan(const GroupedSpec& spec) : spec_(spec) {}
  int64_t workspace_bytes() const override { return most_grouped_workspace(); }

  void run(const GroupedProducts& products, void* workspace, Stream& stream) override {
    const auto call = [spec = spec_, products, workspace, bytes = workspace_bytes()] {
      check_device_memory(workspace, 1, bytes, bytes, "grouped product: its workspace");
      if (reinterpret_cast<uintptr_t>(workspace) % static_cast<uintptr_t>(kPlanWorkspaceAlignment) != 0) {
        throw KernelError("grouped product: its workspace is not aligned");
      }
      std::memset(workspace, 0xff, static_cast<size_t>(bytes));
      check_array(products.sizes, spec.groups, "sizes");
      check_array(products.a, spec.groups, "addresses of A");
      check_array(products.b, spec.groups, "addresses of B");
      check_array(products.c, spec.groups, "addresses of C");
      for (const int64_t* ld : {products.lda, products.ldb, products.ldc})
        check_array(ld, spec.groups, "distances");
      if (spec.bias) check_array(products.bias, spec.groups, "addresses of biases");
      for (int group = 0; group < spec.groups; ++group) {
        if (spec.pass == GroupedPass::dweight) multiply_group<float>(spec, products, group);
        if (spec.pass != GroupedPass::dweight) multiply_group<bf16>(spec, products, group);
      }
    };
    const std::string name = fmt::format("grouped_matmul<{}>", kNames[static_cast<int>(spec_.pass)]);
    check_cuda(emulation::enqueue_library_call(queue_of(stream), name, call), "starting a grouped product");
  }

 private:
  GroupedSpec spec_;
};

}  // namespace

std::unique_ptr<GroupedPlan> make_grouped_plan(const GroupedSpec& spec) {
  return std::make_unique<EmulatedGroupedPlan>(spec);
}

int64_t most_grouped_workspace() { return emulation::GroupedLibrary::offered() ? 768 : 0; }

}  // namespace ziggurat::kernels
