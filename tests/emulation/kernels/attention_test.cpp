// What the op's test (tests/emulation/ops) does not reach: which keys are read, and the bytes moved.
#include <cmath>

#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/attention.h>

namespace ziggurat::emulation {
namespace {

using kernels::AttentionShape;

constexpr int64_t kRows = 64;  // of queries or keys, a block

// Forward and backward of one case on the device.
template <class T>
struct Attention {
  Attention(const AttentionShape& shape, std::vector<T> qkv_values, const std::vector<int32_t>& first_keys)
      : qkv(std::move(qkv_values)),
        y(static_cast<size_t>(shape.rows() * shape.heads * shape.head_dim)),
        dy(values<T>("dy", y.size())),
        dqkv(qkv.size()),
        log_sum_exp(static_cast<size_t>(shape.rows() * shape.heads)),
        first(first_keys) {
    const int32_t* const table = first_keys.empty() ? nullptr : first.data();
    kernels::attention_forward<Device::cuda>(
        kernels::AttentionArgs<T>{shape, 0.25, {}, table, qkv.data(), y.data(), log_sum_exp.data()},
        workspace, stream);
    kernels::attention_backward<Device::cuda>(
        kernels::AttentionGradArgs<T>{
            shape, 0.25, {}, table, qkv.data(), y.data(), log_sum_exp.data(), dy.data(), dqkv.data(), false},
        workspace, stream);
    expect_success(cudaDeviceSynchronize());
  }
  Stream stream{Device::cuda};
  Arena workspace{"workspace", 1 << 20, Device::cuda};
  DeviceArray<T> qkv, y, dy, dqkv;
  DeviceArray<float> log_sum_exp;
  DeviceArray<int32_t> first;
};

using EmulatedAttentionKernels = EmulatedTest;

// Queries and keys of a block meet once: of the keys and values those up to the block's last row, of the
// queries those from the block's first.
TEST_F(EmulatedAttentionKernels, MoveTheirFloor) {
  constexpr int64_t kT = 160, kDim = 64, kRow = 2 * kDim, kHeads = 2;  // bytes of a row of a head
  const AttentionShape shape{1, kT, kHeads, 1, kDim};
  const auto n = static_cast<size_t>(shape.rows() * shape.width());
  const Attention<bf16> run(shape, values<bf16>("qkv", n), {});
  const int64_t met = kRows + 2 * kRows + kT;                  // keys by blocks of queries
  const int64_t later = kT + (kT - kRows) + (kT - 2 * kRows);  // queries by blocks of keys

  const KernelCounts forward = counts("attention_forward_kernel<bf16, 64>");
  EXPECT_EQ(forward.loaded_bytes, kHeads * (kT * kRow + 2 * met * kRow));
  EXPECT_EQ(forward.stored_bytes, kHeads * (kT * kRow + 4 * kT));
  const KernelCounts delta = counts("attention_delta_kernel<bf16, 8>");
  EXPECT_EQ(delta.loaded_bytes, kHeads * 2 * kT * kRow);
  EXPECT_EQ(delta.stored_bytes, kHeads * 4 * kT);
  const KernelCounts query = counts("attention_query_grad_kernel<bf16, 64>");
  EXPECT_EQ(query.loaded_bytes, kHeads * (2 * kT * kRow + 2 * met * kRow + 4 * 2 * 4 * kT));  // by 4 lanes
  EXPECT_EQ(query.stored_bytes, kHeads * kT * kRow);
  const KernelCounts key = counts("attention_key_grad_kernel<bf16, 64, true, true>");
  EXPECT_EQ(key.loaded_bytes, 2 * kT * kRow + kHeads * later * (2 * kRow + 2 * 4));
  EXPECT_EQ(key.stored_bytes, 2 * kT * kRow);
  // Loads are of whole sectors of 32 bytes.
  EXPECT_EQ(forward.load_sectors * 32, forward.loaded_bytes);
}

// What they hold, here NaN, would show even times a probability of 0.
TEST_F(EmulatedAttentionKernels, KeysThatNobodySeesAreNotRead) {
  const AttentionShape shape{1, 3 * kRows, 2, 1, 8};
  const int64_t border = 2 * kRows;
  std::vector<int32_t> first(static_cast<size_t>(shape.length), 0);
  std::fill(first.begin() + border, first.end(), static_cast<int32_t>(border));
  auto qkv = values<float>("qkv", static_cast<size_t>(shape.rows() * shape.width()));
  std::fill_n(qkv.begin(), border * shape.width(), NAN);
  const Attention<float> run(shape, qkv, first);
  const auto y = run.y.get(), dqkv = run.dqkv.get();
  const auto finite = [](float v) { return std::isfinite(v); };
  EXPECT_TRUE(std::all_of(y.begin() + border * shape.heads * shape.head_dim, y.end(), finite));
  EXPECT_TRUE(std::all_of(dqkv.begin() + border * shape.width(), dqkv.end(), finite));
  EXPECT_TRUE(std::isnan(y[0]));
}

TEST_F(EmulatedAttentionKernels, LargeScoresStayFinite) {
  const AttentionShape shape{1, 70, 1, 1, 8};
  const auto qkv = values<bf16>("qkv", static_cast<size_t>(shape.rows() * shape.width()), 100);
  const Attention<bf16> run(shape, qkv, {});
  for (const bf16 v : run.y.get()) EXPECT_TRUE(std::isfinite(static_cast<float>(v)));
  for (const bf16 v : run.dqkv.get()) EXPECT_TRUE(std::isfinite(static_cast<float>(v)));
}

// The same bits again, whatever the order of blocks and threads.
TEST_F(EmulatedAttentionKernels, GiveTheSameBitsInAnyOrder) {
  const AttentionShape shape{1, 3 * kRows, 2, 1, 16};
  const auto qkv = values<float>("qkv", static_cast<size_t>(shape.rows() * shape.width()));
  std::vector<std::vector<float>> results;
  for (const uint64_t seed : {1, 2}) {
    reset(seed);
    results.push_back(Attention<float>(shape, qkv, {}).dqkv.get());
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(EmulatedAttentionKernels, OfNothingDoNothing) {
  const Attention<float> run({2, 0, 2, 1, 8}, {}, {});
  EXPECT_TRUE(all_counts().empty());
}

}  // namespace
}  // namespace ziggurat::emulation
