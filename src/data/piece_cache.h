// What a piece of text came to last time: most pieces of a text are words seen before, and a look-up is far
// cheaper than merging again. Two-way set-associative and of fixed size, so memory stays bounded on any text.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <string_view>
#include <vector>

#include <emmintrin.h>
#include <sys/mman.h>

namespace ziggurat {

// Memory in pages of 2 MiB, if the system gives them: with small ones, look-ups all over a table of many
// megabytes would each wait for the address of the page, too.
template <class T>
struct HugePages {
  using value_type = T;
  HugePages() = default;
  template <class U>
  HugePages(const HugePages<U>&) {}
  static constexpr std::align_val_t kPage{size_t{2} << 20};
  T* allocate(size_t n) {
    void* const memory = ::operator new(n * sizeof(T), kPage);
    ::madvise(memory, n * sizeof(T), MADV_HUGEPAGE);  // only a hint
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { ::operator delete(memory, kPage); }
  bool operator==(const HugePages&) const = default;
};

// A piece of up to 15 bytes: its bytes, zero-padded, and its length in the last byte; all 0: no piece.
struct PieceKey {
  static constexpr size_t kMaxBytes = 15;
  uint64_t low = 0, high = 0;
  bool operator==(const PieceKey&) const = default;
  // Folded product, as wyhash mixes: one multiplication, all bits of the key reach all bits of the hash.
  uint64_t hash() const {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(low ^ 0x9e3779b97f4a7c15ull) * (high ^ 0xd1342543de82ef95ull);
    return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
  }
  std::string_view piece(std::span<char, kMaxBytes + 1> buffer) const {
    std::memcpy(buffer.data(), &low, sizeof(low));
    std::memcpy(buffer.data() + sizeof(low), &high, sizeof(high));
    return {buffer.data(), static_cast<size_t>(high >> 56)};
  }
};

// 1 <= piece.size() <= kMaxBytes.
inline PieceKey piece_key(std::string_view piece) {
  uint64_t word[2] = {0, 0};
  std::memcpy(word, piece.data(), piece.size());
  return {word[0], word[1] | uint64_t{piece.size()} << 56};
}

// The same for the first `length` of sixteen bytes.
inline PieceKey piece_key(__m128i bytes, unsigned length) {
  alignas(16) static constexpr auto kMasks = [] {
    std::array<std::array<uint8_t, 16>, 16> masks{};
    for (size_t n = 0; n < 16; ++n) {
      for (size_t i = 0; i < n; ++i) masks[n][i] = 0xff;
    }
    return masks;
  }();
  const __m128i kept =
      _mm_and_si128(bytes, _mm_load_si128(reinterpret_cast<const __m128i*>(kMasks[length].data())));
  const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(kept));
  const auto high = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(kept, kept)));
  return {low, high | uint64_t{length} << 56};
}

// kIds: most ids of one piece. A set of two entries begins at a multiple of its size, so that a small entry's
// set is one cache line.
template <uint32_t kIds, size_t kSetBits>
class PieceCache {
 public:
  static constexpr uint32_t kMaxIds = kIds;
  struct alignas(sizeof(PieceKey) + 4 + 4 * kIds) Entry {
    PieceKey key;
    uint32_t count = 0;
    int32_t ids[kIds] = {};
  };
  static_assert(sizeof(Entry) == 20 + 4 * kIds);

  // nullptr: not in the cache.
  const Entry* find(const PieceKey& key, uint64_t hash) const {
    const Entry* set = &entries_[set_of(hash)];
    // Which of the two it is looks random to a branch predictor, so no branch asks for it.
    const bool first = differ(set[0].key, key) == 0, second = differ(set[1].key, key) == 0;
    return (first | second) != 0 ? set + second : nullptr;
  }

  void prefetch(uint64_t hash) const {
    _mm_prefetch(reinterpret_cast<const char*>(&entries_[set_of(hash)]), _MM_HINT_T0);
  }

  void insert(const PieceKey& key, uint64_t hash, const int32_t* ids, size_t count) {
    Entry* set = &entries_[set_of(hash)];
    set[1] = set[0];  // the older of the two leaves
    set[0].key = key;
    set[0].count = static_cast<uint32_t>(count);
    std::memcpy(set[0].ids, ids, count * sizeof(int32_t));
  }

 private:
  static uint64_t differ(const PieceKey& a, const PieceKey& b) { return (a.low ^ b.low) | (a.high ^ b.high); }
  static size_t set_of(uint64_t hash) { return static_cast<size_t>(hash >> (64 - kSetBits)) * 2; }
  std::vector<Entry, HugePages<Entry>> entries_{size_t{2} << kSetBits};
};

}  // namespace ziggurat
