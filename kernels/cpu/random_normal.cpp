#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include <ziggurat/kernels/random_normal.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kBlock = 16384;              // elements a thread takes at once
constexpr int64_t kTile = 2 * Philox::kBatch;  // elements of a tile: a pair from each block of random bits

// ln u for u in (0, 1). u = 2^k m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh(s), s = (m - 1) / (m + 1);
// |s| < 0.172, so the first term left out, s^22 / 23, is below 2^-60.
inline double log_of(double u) {
  constexpr auto kRootHalf = std::bit_cast<int64_t>(std::numbers::sqrt2 / 2);
  const auto bits = std::bit_cast<int64_t>(u);
  // AVX2 shifts signed numbers of 32 bits only: so the exponent is made positive before its shift.
  const auto k =
      static_cast<int32_t>(static_cast<uint64_t>(bits - kRootHalf + (int64_t{1} << 62)) >> 52) - 1024;
  const double m = std::bit_cast<double>(bits - (static_cast<int64_t>(k) << 52));
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double p = 1.0 / 21;
  for (const double d : {19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0}) p = p * s2 + 1 / d;
  return 2 * s * p + static_cast<double>(k) * std::numbers::ln2;
}

// Taylor polynomials on |x| <= pi / 4: the terms left out, x^17 / 17! and x^18 / 18!, are below 2^-54.
inline double sin_of(double x) {
  const double x2 = x * x;
  double p = -1 / 1307674368000.0;
  for (const double c : {1 / 6227020800.0, -1 / 39916800.0, 1 / 362880.0, -1 / 5040.0, 1 / 120.0, -1 / 6.0})
    p = p * x2 + c;
  return x + x * x2 * p;
}
inline double cos_of(double x) {
  const double x2 = x * x;
  double p = 1 / 20922789888000.0;
  for (const double c :
       {-1 / 87178291200.0, 1 / 479001600.0, -1 / 3628800.0, 1 / 40320.0, -1 / 720.0, 1 / 24.0, -0.5})
    p = p * x2 + c;
  return 1 + x2 * p;
}

// Registers of AVX2 turn signed numbers of 32 bits to doubles only.
inline double to_double(uint32_t x) {
  return static_cast<double>(static_cast<int32_t>(x ^ (1u << 31))) + 0x1p31;
}

// Box-Muller as in Philox::normal, of blocks `block`, block + 1, ...: the block's first value gives the
// radius, its second the angle. The angle is a 32-bit fraction of a turn, so that cutting it into the nearest
// quarter turn and a rest is exact. One loop for each: gcc 12 vectorises both, but not together.
void draw_tile(const Philox& rng, uint64_t block, std::array<double, kTile>& z) {
  std::array<uint32_t, 4 * Philox::kBatch> bits;
  rng.blocks(block, bits);
  std::array<double, Philox::kBatch> radius, first, second;
  for (size_t i = 0; i < Philox::kBatch; ++i) {
    radius[i] = std::sqrt(-2 * log_of((to_double(bits[4 * i]) + 0.5) * 0x1p-32));
  }
  for (size_t i = 0; i < Philox::kBatch; ++i) {
    const uint32_t turn = bits[4 * i + 1], quarter = (turn + (1u << 29)) >> 30;
    const double x =
        static_cast<double>(static_cast<int32_t>(turn - (quarter << 30))) * (2 * std::numbers::pi * 0x1p-32);
    const double c = cos_of(x), s = sin_of(x);
    const bool odd = (quarter & 1) != 0;
    const double cosine = odd ? s : c, sine = odd ? c : s;
    first[i] = ((quarter + 1) & 2) != 0 ? -cosine : cosine;
    second[i] = (quarter & 2) != 0 ? -sine : sine;
  }
  for (size_t i = 0; i < Philox::kBatch; ++i) {
    z[2 * i] = radius[i] * first[i];
    z[2 * i + 1] = radius[i] * second[i];
  }
}

}  // namespace

template <Device D, class T>
void random_normal(const RandomNormalArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "random_normal");
  parallel_for_blocks(g.n, kBlock, [=](int64_t begin, int64_t end) {
    std::array<double, kTile> z;
    for (int64_t i = begin; i < end;) {
      const uint64_t element = g.first + static_cast<uint64_t>(i);
      draw_tile(g.rng, element / 2, z);
      const auto skip = static_cast<int64_t>(element % 2);
      const int64_t size = std::min(kTile - skip, end - i);
      for (int64_t j = 0; j < size; ++j) g.y[i + j] = T(g.scale * z[static_cast<size_t>(skip + j)]);
      i += size;
    }
  });
}

template void random_normal<Device::cpu>(const RandomNormalArgs<float>&, Stream&);
template void random_normal<Device::cpu>(const RandomNormalArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
