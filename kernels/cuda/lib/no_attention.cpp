// For builds without cuDNN or its headers.
#include <kernels/cuda/lib/attention_plan.h>

namespace ziggurat::kernels {

std::unique_ptr<AttentionPlan> make_attention_plan(const AttentionSpec&) { return nullptr; }
std::string fault_of_description(const AttentionSpec&, int) { return ""; }
int64_t most_attention_workspace(const AttentionSpec&) { return 0; }

}  // namespace ziggurat::kernels
