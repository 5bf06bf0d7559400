#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat {
namespace {

using testing::HasSubstr;

template <class F>
std::string internal_error(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    return error.what();
  }
  return "no error";
}

TEST(Arena, AllocationsAreAlignedAndApart) {
  Arena arena("test", 4096);
  auto* a = static_cast<char*>(arena.allocate(1));
  auto* b = static_cast<char*>(arena.allocate(65));
  auto* c = static_cast<char*>(arena.allocate(64));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % Arena::kAlignment, 0u);
  EXPECT_EQ(b - a, 64);
  EXPECT_EQ(c - b, 128);
  EXPECT_EQ(arena.used(), 256);
}

TEST(Arena, EmptyAllocationsHaveAddressesOfTheirOwn) {
  Arena arena("test", 4096);
  void* const a = arena.allocate(0);
  EXPECT_NE(a, arena.allocate(0));
}

TEST(Arena, RewindFreesAndHighWaterRemembers) {
  Arena arena("test", 4096);
  void* const kept = arena.allocate(64);
  const Arena::Mark mark = arena.mark();
  void* const freed = arena.allocate(1000);
  EXPECT_EQ(arena.used(), 64 + 1024);
  arena.rewind(mark);
  EXPECT_EQ(arena.used(), 64);
  EXPECT_EQ(arena.high_water(), 64 + 1024);
  EXPECT_EQ(arena.allocate(8), freed);
  arena.reset();
  EXPECT_EQ(arena.used(), 0);
  EXPECT_EQ(arena.high_water(), 64 + 1024);
  EXPECT_EQ(arena.allocate(8), kept);
}

TEST(Arena, ScopesFreeInReverseOrder) {
  Arena arena("test", 4096);
  {
    const ArenaScope outer(arena);
    arena.allocate(64);
    {
      const ArenaScope inner(arena);
      arena.allocate(64);
      EXPECT_EQ(arena.used(), 128);
    }
    EXPECT_EQ(arena.used(), 64);
  }
  EXPECT_EQ(arena.used(), 0);
}

TEST(Arena, TheLastByteCanBeHadAndNoMore) {
  Arena arena("activations", 128);
  arena.allocate(64);
  try {
    arena.allocate(65);
    FAIL() << "65 bytes of 64 left";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_THAT(error.what(), HasSubstr("[arena activations] 65 bytes asked, 64 of 128 left"));
  }
  EXPECT_EQ(arena.used(), 64);  // a refused request takes nothing
  EXPECT_NO_THROW(arena.allocate(64));
}

TEST(Arena, MoreAddressesThanThereAreIsAnError) { EXPECT_THROW(Arena("huge", int64_t{1} << 62), Error); }

TEST(Arena, MetaMemoryOnlyCounts) {
  Arena arena("meta", int64_t{1} << 40, Device::meta, Canaries::checked);  // canaries have nothing to guard
  void* const a = arena.allocate_on_device(int64_t{1} << 38);
  EXPECT_NE(a, arena.allocate_on_device(64));
  EXPECT_EQ(arena.used(), (int64_t{1} << 38) + 64);
  arena.reset();
  EXPECT_EQ(arena.high_water(), (int64_t{1} << 38) + 64);
}

TEST(Arena, HostMemoryOnMetaIsReal) {
  Arena arena("meta", Arena::kUnlimited, Device::meta);
  auto* kept = static_cast<char*>(arena.allocate(100));
  std::memset(kept, 7, 100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(kept) % Arena::kAlignment, 0u);
  const Arena::Mark mark = arena.mark();
  arena.allocate_on_device(int64_t{1} << 45);
  std::memset(arena.allocate(1000), 8, 1000);
  arena.rewind(mark);
  EXPECT_EQ(arena.used(), 128);
  std::memset(arena.allocate(1000), 9, 1000);
  EXPECT_EQ(kept[99], 7);
}

// Bytes of addresses that this process has.
int64_t addresses() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

constexpr int64_t kMiB = int64_t{1} << 20;

TEST(Arena, TakesTheAddressesThatItUses) {
  const int64_t before = addresses();
  Arena arena("activations", 1024 * 1024 * kMiB);
  EXPECT_LT(addresses() - before, 64 * kMiB);
  auto* first = static_cast<char*>(arena.allocate(kMiB));
  std::memset(first, 1, kMiB);
  auto* second = static_cast<char*>(arena.allocate(300 * kMiB));
  EXPECT_EQ(second, first + kMiB);  // nothing moved, one range
  second[300 * kMiB - 1] = 2;
  EXPECT_EQ(first[kMiB - 1], 1);
  const int64_t grown = addresses() - before;
  EXPECT_GE(grown, 301 * kMiB);
  EXPECT_LT(grown, 420 * kMiB);
  for (int step = 0; step < 3; ++step) {  // steady state: nothing more
    arena.reset();
    arena.allocate(kMiB);
    arena.allocate(300 * kMiB);
  }
  EXPECT_LT(addresses() - before, grown + kMiB);
  EXPECT_EQ(arena.high_water(), 301 * kMiB);
}

TEST(Arena, CanariesHoldWhereItGrows) {
  Arena arena("workspace", 1024 * kMiB, Device::cpu, Canaries::checked);
  const Arena::Mark mark = arena.mark();
  arena.allocate(31 * kMiB);
  auto* across = static_cast<char*>(arena.allocate(64 * kMiB));
  auto* kept = static_cast<char*>(arena.rewind_keeping(mark, across, 64 * kMiB));
  kept[64 * kMiB] = 1;
  EXPECT_THAT(internal_error([&] { arena.reset(); }), HasSubstr("an allocation of 67108864 bytes"));
}

TEST(Arena, ManyHaveRoomSideBySideAndRoomsComeBack) {
  std::vector<std::unique_ptr<Arena>> arenas;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) arenas.push_back(std::make_unique<Arena>("one of many", int64_t{1} << 36));
    std::vector<char*> places;
    for (const auto& arena : arenas) places.push_back(static_cast<char*>(arena->allocate(40 * kMiB)));
    for (size_t i = 0; i < places.size(); ++i) places[i][40 * kMiB - 1] = static_cast<char>(i);
    for (size_t i = 0; i < places.size(); ++i) EXPECT_EQ(places[i][40 * kMiB - 1], static_cast<char>(i));
    arenas.clear();
  }
}

// In a process of its own, whose addresses are limited.
TEST(Arena, ALimitOnAddressesIsNamedWithItsCure) {
  const auto under_limit = [] {
    const rlim_t limit = static_cast<rlim_t>(addresses() + 600 * kMiB);
    const rlimit limits{limit, limit};
    setrlimit(RLIMIT_AS, &limits);
    try {
      Arena one("activations", 64 * 1024 * kMiB), two("workspace", 64 * 1024 * kMiB);
      one.allocate(200 * kMiB);
      two.allocate(200 * kMiB);
      one.allocate(350 * kMiB);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(error.kind() == ErrorKind::device ? 1 : 2);
    }
    _exit(0);
  };
  EXPECT_EXIT(
      under_limit(), testing::ExitedWithCode(1),
      "arena activations. cannot get memory for 576716800 bytes.*ulimit -v.*are taken.*smaller micro-batch");
}

TEST(Arena, RewindKeepingMovesAValueDown) {
  for (const Canaries canaries : {Canaries::off, Canaries::checked}) {
    Arena arena("test", 4096, Device::cpu, canaries);
    arena.allocate(64);
    const Arena::Mark mark = arena.mark();
    arena.allocate(8);  // smaller than the value: old and new place overlap
    auto* value = static_cast<int32_t*>(arena.allocate(50 * 4));
    for (int32_t i = 0; i < 50; ++i) value[i] = i;
    auto* moved = static_cast<int32_t*>(arena.rewind_keeping(mark, value, 50 * 4));
    EXPECT_LT(moved, value);
    for (int32_t i = 0; i < 50; ++i) ASSERT_EQ(moved[i], i);
    EXPECT_GE(static_cast<char*>(arena.allocate(1)) - reinterpret_cast<char*>(moved), 50 * 4);
    EXPECT_NO_THROW(arena.reset());
  }
}

TEST(Arena, OnlyWhatLiesAboveTheMarkCanBeKept) {
  Arena arena("test", 4096);
  void* const below = arena.allocate(64);
  const Arena::Mark mark = arena.mark();
  void* const above = arena.allocate(64);
  EXPECT_THAT(internal_error([&] { arena.rewind_keeping(mark, below, 64); }), HasSubstr("[arena test]"));
  EXPECT_THAT(internal_error([&] { arena.rewind_keeping(mark, above, 128); }), HasSubstr("[arena test]"));
}

// One byte past the end, within the last cache line and in the guard proper, on every way out.
TEST(Canaries, AWriteBehindAnAllocationIsNamed) {
  for (const int64_t offset : {10, 63, 64, 127}) {
    Arena arena("workspace", 4096, Device::cpu, Canaries::checked);
    const auto spoil = [&] { static_cast<char*>(arena.allocate(10))[offset] = 1; };
    const std::string want =
        "[arena workspace] somebody wrote " + std::to_string(offset - 10) + " bytes behind the end";
    spoil();
    EXPECT_THAT(internal_error([&] { arena.reset(); }), HasSubstr(want));
    arena.reset();
    spoil();
    EXPECT_THAT(internal_error([&] { arena.rewind({}); }), HasSubstr(want));
    arena.reset();
    EXPECT_THAT(internal_error([&] {
                  const ArenaScope scope(arena);
                  spoil();
                }),
                HasSubstr(want));
  }
}

TEST(Canaries, WritesWithinBoundsPass) {
  Arena arena("test", 4096, Device::cpu, Canaries::checked);
  for (const int64_t bytes : {0, 1, 63, 64, 65})
    std::memset(arena.allocate(bytes), 1, static_cast<size_t>(bytes));
  EXPECT_NO_THROW(arena.reset());
}

TEST(Canaries, AKeptValueIsGuardedToo) {
  Arena arena("test", 4096, Device::cpu, Canaries::checked);
  arena.allocate(8);
  auto* moved = static_cast<char*>(arena.rewind_keeping({}, arena.allocate(8), 8));
  moved[8] = 1;
  EXPECT_THAT(internal_error([&] { arena.reset(); }), HasSubstr("an allocation of 8 bytes"));
}

TEST(Canaries, AnErrorOnItsWayIsNotHidden) {
  Arena arena("test", 4096, Device::cpu, Canaries::checked);
  const auto body = [&] {
    const ArenaScope scope(arena);
    static_cast<char*>(arena.allocate(8))[8] = 1;
    fail(ErrorKind::internal, "the first error");
  };
  EXPECT_EQ(internal_error(body), "the first error");
}

TEST(Canaries, FreshMemoryIsNaN) {
  Arena arena("test", 4096, Device::cpu, Canaries::checked);
  for (int round = 0; round < 2; ++round) {
    auto* x = static_cast<float*>(arena.allocate(8));
    EXPECT_TRUE(std::isnan(x[0]) && std::isnan(x[1]));
    x[0] = x[1] = 1.0f;
    arena.reset();
  }
}

}  // namespace
}  // namespace ziggurat
