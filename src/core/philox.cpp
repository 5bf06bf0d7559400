#include <ziggurat/core/philox.h>

namespace ziggurat {

// block() over lanes, which the compiler vectorises (gcc 12 does so for 32 of them). How wide is for
// CMakeLists.txt to say.
void Philox::blocks(uint64_t index, std::array<uint32_t, 4 * kBatch>& out) const {
  std::array<uint32_t, kBatch> c0, c1, c2, c3;
  for (size_t i = 0; i < kBatch; ++i) {
    c0[i] = static_cast<uint32_t>(index + i), c1[i] = static_cast<uint32_t>((index + i) >> 32);
    c2[i] = static_cast<uint32_t>(prefix_), c3[i] = static_cast<uint32_t>(prefix_ >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
  for (int round = 0; round < 10; ++round) {
    for (size_t i = 0; i < kBatch; ++i) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[i], p1 = uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(p1);
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (size_t i = 0; i < kBatch; ++i) {
    out[4 * i] = c0[i], out[4 * i + 1] = c1[i], out[4 * i + 2] = c2[i], out[4 * i + 3] = c3[i];
  }
}

}  // namespace ziggurat
