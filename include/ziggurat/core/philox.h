// Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): a value is a function of (key,
// counter) only, so it never depends on rank, thread or call order.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace ziggurat {

// Every use of randomness has its own purpose, so two uses never share numbers.
enum class Purpose : uint32_t {
  init = 1,
  embedding_dropout,
  attention_dropout,
  hidden_dropout,
  router_jitter,
  router_gumbel,
  token_selection,
  sample_order,
  generation,
  test,
  state_rounding,
  denoising,
};

// FNV-1a, for names as parts of a key.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  }
  return hash;
}

class Philox {
 public:
  using Block = std::array<uint32_t, 4>;

  // A stream is named by (seed, purpose, a, b): e.g. a = layer or hash of a name, b = step and micro-batch.
  Philox(uint64_t seed, Purpose purpose, uint64_t a = 0, uint64_t b = 0) {
    // Mix the four names into a 64-bit key and a 64-bit counter prefix (splitmix64 finaliser).
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15ull);
    h = mix(h ^ (static_cast<uint64_t>(purpose) * 0xd1342543de82ef95ull));
    h = mix(h ^ (a + 0x2545f4914f6cdd1dull));
    *this = Philox(h, b);
  }

  // Four independent 32-bit values for block `index`. constexpr: device code draws the same bits by the same
  // lines.
  constexpr Block block(uint64_t index) const {
    uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
    uint32_t c2 = static_cast<uint32_t>(prefix_), c3 = static_cast<uint32_t>(prefix_ >> 32);
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }

  // The values of kBatch blocks from `index` on, block after block: the same numbers, several times faster.
  static constexpr int kBatch = 32;
  void blocks(uint64_t index, std::array<uint32_t, 4 * kBatch>& out) const;

  constexpr uint32_t bits(uint64_t element) const { return block(element / 4)[element % 4]; }

  // Uniform in (0, 1): 24 bits, never 0 and never 1.
  static constexpr float to_uniform(uint32_t bits) {
    return (static_cast<float>(bits >> 8) + 0.5f) * 0x1p-24f;
  }
  constexpr float uniform(uint64_t element) const { return to_uniform(bits(element)); }

  // Standard normal by Box-Muller; elements 2i and 2i+1 share a pair of uniforms.
  double normal(uint64_t element) const {
    const Block b = block(element / 2);
    const double u1 = (static_cast<double>(b[0]) + 0.5) * 0x1p-32;
    const double angle = 2.0 * std::numbers::pi * static_cast<double>(b[1]) * 0x1p-32;
    const double radius = std::sqrt(-2.0 * std::log(u1));
    return element % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
  }

 private:
  friend class LatePhilox;
  constexpr Philox(uint64_t key, uint64_t b) : key_(key), prefix_(mix(key ^ (b + 0x9e3779b97f4a7c15ull))) {}
  static constexpr uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint64_t key_, prefix_;
};

// A stream whose last name stands in memory, where it is read when numbers are drawn: work that is queued
// again as it is (runtime/graph.h) draws those of another moment. Memory of the device that draws.
class LatePhilox {
 public:
  LatePhilox() = default;
  LatePhilox(uint64_t seed, Purpose purpose, uint64_t a, const uint64_t* b)
      : key_(Philox(seed, purpose, a).key_), b_(b) {}
  // Philox(seed, purpose, a, *b)
  constexpr Philox now() const { return Philox(key_, *b_); }

 private:
  uint64_t key_ = 0;
  const uint64_t* b_ = nullptr;
};

}  // namespace ziggurat
