// Attention by a library, as objects that do not say which: cuDNN's where a build for GPUs has it
// (cudnn_attention.cpp), none elsewhere and on the emulated device (no_attention.cpp). Our own kernels'
// launch code asks here first, and does itself what is refused.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include <ziggurat/kernels/attention.h>

namespace ziggurat::kernels {

// Queued on the stream. false: nothing was done, and our own kernels have to; so in a dry run, which does not
// ask the library, and takes what either would.
bool attend_by_library(const AttentionArgs<bf16>& args, Arena& workspace, Stream& stream);
bool attend_by_library(const AttentionGradArgs<bf16>& args, Arena& workspace, Stream& stream);

// The rest is between these two and a library.

enum class AttentionPass : uint8_t { forward, backward };

// Attention without its addresses: what a library chooses an algorithm by.
struct AttentionSpec {
  AttentionPass pass = AttentionPass::forward;
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;  // as in AttentionArgs
  float scale = 1;

  AttentionShape shape() const { return {batch, length, heads, kv_heads, head_dim}; }
  auto operator<=>(const AttentionSpec&) const = default;
};

// As in AttentionArgs and AttentionGradArgs. Forward writes y and log_sum_exp.
struct AttentionAddresses {
  const bf16* qkv = nullptr;
  bf16* y = nullptr;
  float* log_sum_exp = nullptr;
  const bf16* dy = nullptr;
  bf16* dqkv = nullptr;
};

// Attention that a library is ready to run: the same bits every time. For one thread at a time.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
  virtual int64_t workspace_bytes() const = 0;
  virtual void run(const AttentionAddresses& addresses, void* workspace, Stream& stream) = 0;
};

// Null: the library does not have it. Error(device) with the library's own words where it fails.
std::unique_ptr<AttentionPlan> make_attention_plan(const AttentionSpec& spec);

// What the library says against this description for a GPU of this compute capability (80, 90, 100), without
// one; empty: nothing, or there is no library.
std::string fault_of_description(const AttentionSpec& spec, int capability);

// What such a plan's workspace_bytes() does not go beyond: what is planned with, where no device is to be
// asked. 0: there is no library.
int64_t most_attention_workspace(const AttentionSpec& spec);

}  // namespace ziggurat::kernels
