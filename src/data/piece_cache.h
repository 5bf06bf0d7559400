// What a piece of text came to last time: most pieces of a text are words seen before, and a look-up is far
// cheaper than merging again. Two-way set-associative and of fixed size, so memory stays bounded on any text.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace ziggurat {

class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 15;  // longer pieces are rare and are merged every time
  static constexpr uint32_t kMaxIds = 11;

  // One cache line.
  struct Entry {
    uint64_t low = 0, high = 0;  // the piece's bytes, zero-padded, its length in the last byte; 0: empty
    uint32_t count = 0;
    int32_t ids[kMaxIds] = {};
  };
  static_assert(sizeof(Entry) == 64);

  struct Key {
    uint64_t low, high;
  };

  // `readable`: bytes from piece.data() on that may be read. 1 <= piece.size() <= kMaxBytes.
  static Key key(std::string_view piece, size_t readable) {
    uint64_t word[2] = {0, 0};
    const size_t n = piece.size();
    if (readable >= 16) {
      std::memcpy(word, piece.data(), 16);
      if (n < 8) {
        word[0] &= (uint64_t{1} << (8 * n)) - 1;
        word[1] = 0;
      } else {
        word[1] &= (uint64_t{1} << (8 * (n - 8))) - 1;
      }
    } else {
      std::memcpy(word, piece.data(), n);
    }
    return {word[0], word[1] | uint64_t{n} << 56};
  }

  // nullptr: not in the cache.
  const Entry* find(Key key) const {
    const Entry* set = &entries_[set_of(key)];
    if (set[0].low == key.low && set[0].high == key.high) return &set[0];
    if (set[1].low == key.low && set[1].high == key.high) return &set[1];
    return nullptr;
  }

  void insert(Key key, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    Entry* set = &entries_[set_of(key)];
    set[1] = set[0];  // the older of the two leaves
    set[0].low = key.low, set[0].high = key.high;
    set[0].count = static_cast<uint32_t>(count);
    std::memcpy(set[0].ids, ids, count * sizeof(int32_t));
  }

 private:
  static constexpr size_t kSets = size_t{1} << 15;  // 4 MiB
  static size_t set_of(Key key) {
    uint64_t h = (key.low ^ (key.high * 0x9e3779b97f4a7c15ull)) * 0xd1342543de82ef95ull;
    h ^= h >> 32;
    return static_cast<size_t>((h * 0x9e3779b97f4a7c15ull) >> 49) * 2;
  }
  std::vector<Entry> entries_ = std::vector<Entry>(kSets * 2);
};

}  // namespace ziggurat
