// The channels between threads of this process: groups of any size, whatever MPI has to offer.
#include "comm/shared_channels.h"

#include <thread>

#include <gmock/gmock.h>

#include "tests/comm/values.h"

namespace ziggurat::comm {
namespace {

constexpr int64_t kSlotBytes = 64;

void on_threads(int ranks, const std::function<void(SharedChannels&, int)>& body) {
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  const auto lines = static_cast<size_t>((SharedChannels::segment_bytes(ranks, kSlotBytes) + 63) / 64);
  std::vector<std::vector<Line>> memory(static_cast<size_t>(ranks), std::vector<Line>(lines));
  std::vector<std::byte*> segments;
  for (auto& segment : memory) segments.push_back(segment.data()->bytes);
  std::vector<std::jthread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      SharedChannels channels(segments, r, kSlotBytes, [] {});
      body(channels, r);
    });
  }
}

std::span<std::byte> bytes_of(std::vector<float>& v) { return std::as_writable_bytes(std::span(v)); }

TEST(SharedChannels, SumsAreTheTreeCutInTheMiddleForEveryGroup) {
  for (const int ranks : {2, 3, 4, 5, 8}) {
    on_threads(ranks, [&](SharedChannels& channels, int rank) {
      for (const int64_t n : {1, 15, 17, 333}) {
        std::vector<float> values(static_cast<size_t>(n)), wide, block(static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i)
          values[static_cast<size_t>(i)] = contract::random_value<float>(rank, i);
        for (int r = 0; r < ranks; ++r) wide.insert(wide.end(), values.begin(), values.end());
        channels.all_reduce(bytes_of(values), DType::f32, ReduceOp::sum, "here");
        channels.reduce_scatter(bytes_of(wide), bytes_of(block), DType::f32, "here");
        for (int64_t i = 0; i < n; ++i) {
          const float tree = contract::local_tree<float>(0, ranks, i);
          ASSERT_TRUE(contract::same_bits(values[static_cast<size_t>(i)], tree)) << ranks << " ranks, " << i;
          ASSERT_TRUE(contract::same_bits(block[static_cast<size_t>(i)], tree)) << ranks << " ranks, " << i;
        }
      }
    });
  }
}

TEST(SharedChannels, AnotherSizeThanExpectedIsAnError) {
  on_threads(2, [](SharedChannels& channels, int rank) {
    std::vector<float> out(2), in(1);
    if (rank == 0) return channels.exchange({{}, bytes_of(out)}, {{}, {}}, "here");
    const std::string message = contract::message_of(ErrorKind::communication, [&] {
      channels.exchange({{}, {}}, {bytes_of(in), {}}, "here");
    });
    EXPECT_THAT(message, testing::HasSubstr("here expects 4 bytes from rank 0, which sends 8"));
  });
}

TEST(SharedChannels, SlotsAreWholeCacheLinesAndBoundedInLargeGroups) {
  EXPECT_THAT(contract::message_of(ErrorKind::internal,
                                   [] {
                                     SharedChannels({nullptr, nullptr}, 0, 65, [] {});
                                   }),
              testing::HasSubstr("multiple of 64"));
  EXPECT_EQ(SharedChannels::slot_bytes(2, int64_t{1} << 18), int64_t{1} << 18);
  const int64_t slot = SharedChannels::slot_bytes(128, int64_t{1} << 18);
  EXPECT_EQ(slot % 64, 0);
  EXPECT_LE(SharedChannels::segment_bytes(128, slot), int64_t{5} << 20);
}

}  // namespace
}  // namespace ziggurat::comm
