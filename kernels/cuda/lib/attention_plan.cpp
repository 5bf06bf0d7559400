#include <kernels/cuda/lib/attention_plan.h>
#include <kernels/cuda/lib/plan_cache.h>

#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

namespace {

bool at_16_bytes(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

// Whether a library may be asked at all. Not with dropout, whose bits must be the CPU's; nor with first_key
// and last_key, which keep rows from keys by tables that no library's mask takes. head_dim: cuDNN has
// multiples of 8 up to 128 forward and backward on all GPUs from the A100 on; its addresses are multiples of
// 16 bytes.
template <class Args>
bool suits_a_library(const Args& g) {
  const AttentionShape& s = g.shape;
  return g.dropout.probability == 0 && g.first_key == nullptr && g.last_key == nullptr &&
         s.head_dim % 8 == 0 && s.head_dim <= 128 && s.rows() > 0;
}

template <class Args>
AttentionSpec spec_of(AttentionPass pass, const Args& g) {
  const AttentionShape& s = g.shape;
  return {pass, s.batch, s.length, s.heads, s.kv_heads, s.head_dim, g.window, static_cast<float>(g.scale)};
}

bool run(const AttentionSpec& spec, const AttentionAddresses& addresses, Arena& workspace, Stream& stream) {
  const ArenaScope scope(workspace);
  if (DryRun::on()) {
    take_scratch(most_attention_workspace(spec), workspace);
    return false;
  }
  AttentionPlan* const plan = plan_of<256>(spec, make_attention_plan);
  if (plan == nullptr) return false;
  plan->run(addresses, take_scratch(plan->workspace_bytes(), workspace), stream);
  return true;
}

}  // namespace

bool attend_by_library(const AttentionArgs<bf16>& g, Arena& workspace, Stream& stream) {
  if (!suits_a_library(g) || !at_16_bytes(g.qkv) || !at_16_bytes(g.y)) return false;
  return run(spec_of(AttentionPass::forward, g), {.qkv = g.qkv, .y = g.y, .log_sum_exp = g.log_sum_exp},
             workspace, stream);
}

bool attend_by_library(const AttentionGradArgs<bf16>& g, Arena& workspace, Stream& stream) {
  // Gradients that are there already would have to be added in a pass of their own.
  if (g.accumulate || !suits_a_library(g) || !at_16_bytes(g.qkv) || !at_16_bytes(g.y) || !at_16_bytes(g.dy) ||
      !at_16_bytes(g.dqkv)) {
    return false;
  }
  return run(spec_of(AttentionPass::backward, g),
             {.qkv = g.qkv,
              .y = const_cast<bf16*>(g.y),
              .log_sum_exp = const_cast<float*>(g.log_sum_exp),
              .dy = g.dy,
              .dqkv = g.dqkv},
             workspace, stream);
}

}  // namespace ziggurat::kernels
