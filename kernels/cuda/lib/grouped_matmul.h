// Products of groups of rows by a library, as objects that do not say which: CUTLASS's on Hopper where a
// build has its headers (cutlass_grouped.cu), none elsewhere (no_grouped.cpp), plain loops on the emulated
// device where a test asks for them. grouped_linear.cu asks here first, and does itself what is refused.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>

#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::kernels {

// Queued on the stream. false: nothing was done, and the kernels of grouped_linear.cu have to; so in a dry
// run, which does not ask the library, and takes what either would. Of forward z = x weight^T + bias is
// computed, of the gradients one, from the gradient dz of z.
bool multiply_groups_by_library(const GroupedLinearArgs<bf16>& args, Arena& workspace, Stream& stream);
bool dx_of_groups_by_library(const GroupedLinearGradArgs<bf16>& args, const bf16* dz, Arena& workspace,
                             Stream& stream);
bool dweight_of_groups_by_library(const GroupedLinearGradArgs<bf16>& args, const bf16* dz, Arena& workspace,
                                  Stream& stream);

// The rest is between these and a library.

// Of C [m, n] = A [m, k] B [k, n]:
//   forward  A = x, rows along k; B = weight^T, columns along k; C bf16, the sums and a bias by column
//   dx       A = dz, rows along k; B = weight, rows along n; C bf16, added to where `accumulate`
//   dweight  A = dz^T, columns along m; B = x, rows along n; C f32, added to where `accumulate`
enum class GroupedPass : uint8_t { forward, dx, dweight };

struct GroupedSpec {
  GroupedPass pass = GroupedPass::forward;
  int groups = 0;
  bool bias = false, accumulate = false;

  auto operator<=>(const GroupedSpec&) const = default;
};

// The products of all groups, in arrays [groups] on the device. A group without rows has m = 0, and no
// addresses that may be read. Addresses are multiples of 16 bytes, and so are the distances between rows.
struct GroupedProducts {
  struct Size {
    int32_t m, n, k;
  };
  Size* sizes = nullptr;
  const bf16 **a = nullptr, **b = nullptr;
  void** c = nullptr;
  const float** bias = nullptr;                            // of n floats each; null without bias
  int64_t *lda = nullptr, *ldb = nullptr, *ldc = nullptr;  // elements
};

// A product that a library is ready to run. For one thread at a time.
class GroupedPlan {
 public:
  virtual ~GroupedPlan() = default;
  virtual int64_t workspace_bytes() const = 0;  // up to most_grouped_workspace()
  virtual void run(const GroupedProducts& products, void* workspace, Stream& stream) = 0;
};

// Null: the library does not have it, or not on this device. Error(device) with the library's own words.
std::unique_ptr<GroupedPlan> make_grouped_plan(const GroupedSpec& spec);

// What no plan's workspace_bytes() goes beyond: what is planned with, where no device is to be asked. 0:
// there is no library.
int64_t most_grouped_workspace();

}  // namespace ziggurat::kernels
