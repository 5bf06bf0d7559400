// For builds without CUTLASS, or not for Hopper.
#include <kernels/cuda/lib/grouped_matmul.h>

namespace ziggurat::kernels {

std::unique_ptr<GroupedPlan> make_grouped_plan(const GroupedSpec&) { return nullptr; }
int64_t most_grouped_workspace() { return 0; }

}  // namespace ziggurat::kernels
