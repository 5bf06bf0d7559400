// Rows that extend sequences in a cache, against the CPU's, in every size of a head.
#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/cached_attention.h>

namespace ziggurat::emulation {
namespace {

struct CachedCase {
  int64_t heads, kv_heads, head_dim, window = 0;
  bool rotates = false;
};
void PrintTo(const CachedCase& c, std::ostream* os) {
  *os << c.heads << "/" << c.kv_heads << " x " << c.head_dim << " window " << c.window
      << (c.rotates ? " rotated" : "");
}

class EmulatedCachedAttention : public EmulatedTest, public testing::WithParamInterface<CachedCase> {};

// Of three sequences: the first row of one; one more of a long one that has let a block go; several of one.
struct Tables {
  static constexpr int64_t kBlock = 4;
  std::vector<int32_t> sequence, position, blocks, begin = {0}, dropped;

  void add(const std::vector<int32_t>& held, int32_t let_go, int32_t first, int32_t rows) {
    for (int32_t i = 0; i < rows; ++i) {
      sequence.push_back(static_cast<int32_t>(dropped.size()));
      position.push_back(first + i);
    }
    blocks.insert(blocks.end(), held.begin(), held.end());
    begin.push_back(static_cast<int32_t>(blocks.size()));
    dropped.push_back(let_go);
  }
  kernels::BlockTables tables() const {
    return {kBlock, std::ssize(dropped), blocks.data(), begin.data(), dropped.data()};
  }
};

template <class T>
void expect_equals_cpu(const CachedCase& c) {
  constexpr int64_t kBlocks = 20;
  Tables tables;
  tables.add({7}, 0, 0, 1);
  if (c.window > 0) {
    tables.add({3, 0, 5}, 1, 13, 1);  // sees from 13 + 1 - window on
  } else {
    tables.add({3, 0, 5, 11, 2, 19, 4, 6, 8, 10, 12}, 0, 41, 1);
  }
  tables.add({9, 1, 14}, 0, 2, 6);
  const int64_t rows = std::ssize(tables.sequence);
  const kernels::AttentionShape shape{rows, 1, c.heads, c.kv_heads, c.head_dim};
  const auto n = static_cast<size_t>(kBlocks * c.kv_heads * Tables::kBlock * c.head_dim);
  const auto qkv = values<T>("qkv", static_cast<size_t>(rows * shape.width()));
  auto keys = values<T>("keys", n), cached = values<T>("values", n);
  std::vector<T> y(static_cast<size_t>(rows * c.heads * c.head_dim));
  const auto angles = static_cast<size_t>(rows * c.head_dim / 2);
  const auto cosine = values<float>("cosine", angles), sine = values<float>("sine", angles);

  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena here("here", 1 << 20), there("there", 1 << 20, Device::cuda);
  const DeviceArray<T> d_qkv(qkv), d_keys(keys), d_values(cached), d_y(y);
  const DeviceArray<float> d_cosine(cosine), d_sine(sine);
  const DeviceArray<int32_t> d_sequence(tables.sequence), d_position(tables.position),
      d_blocks(tables.blocks), d_begin(tables.begin), d_dropped(tables.dropped);
  kernels::CachedAttentionArgs<T> args{shape,
                                       0.25,
                                       qkv.data(),
                                       tables.sequence.data(),
                                       tables.position.data(),
                                       tables.tables(),
                                       c.window,
                                       keys.data(),
                                       cached.data(),
                                       c.rotates ? cosine.data() : nullptr,
                                       c.rotates ? sine.data() : nullptr,
                                       y.data()};
  kernels::cached_attention<Device::cpu>(args, here, cpu);
  args.qkv = d_qkv.data(), args.keys = d_keys.data(), args.values = d_values.data(), args.y = d_y.data();
  args.sequence = d_sequence.data(), args.position = d_position.data();
  args.tables.blocks = d_blocks.data(), args.tables.begin = d_begin.data();
  args.tables.dropped = d_dropped.data();
  if (c.rotates) args.cosine = d_cosine.data(), args.sine = d_sine.data();
  kernels::cached_attention<Device::cuda>(args, there, cuda);
  expect_success(cudaDeviceSynchronize());
  expect_near(d_keys.get(), keys, "keys", 2, 2);
  expect_near(d_values.get(), cached, "values", 0, 0);
  // A key that was rounded to the neighbour changes its score.
  expect_near(d_y.get(), y, "y", sizeof(T) == 2 ? 1 << 20 : 64, 2);
}

TEST_P(EmulatedCachedAttention, EqualsTheCpus) {
  expect_equals_cpu<float>(GetParam());
  expect_equals_cpu<bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedCachedAttention,
                         testing::Values(CachedCase{2, 2, 8}, CachedCase{4, 2, 12, 7, true},
                                         CachedCase{2, 1, 64, 9}, CachedCase{3, 1, 80, 0, true},
                                         CachedCase{1, 1, 128}, CachedCase{2, 1, 256, 0, true}));

}  // namespace
}  // namespace ziggurat::emulation
