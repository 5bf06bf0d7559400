// Spans of host memory: cut, copied, reduced.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include <ziggurat/comm/communicator.h>

namespace ziggurat::comm {

// out[i] = op(a[i], b[i]). Out may be a or b; all three are equally long arrays of f32, f64 or i32.
void reduce_into(std::span<std::byte> out, std::span<const std::byte> a, std::span<const std::byte> b,
                 DType dtype, ReduceOp op);

// out = op over all values, added as the binary tree over [0, n) cut in the middle: ((0+1)+(2+3))+... for
// powers of two. Out may be one of the values; two values at least.
void reduce_tree(std::span<std::byte> out, const std::vector<std::span<const std::byte>>& values, DType dtype,
                 ReduceOp op);

// body(begin, length) over [0, total) in pieces of at most `chunk`; nothing for total 0.
template <class Body>
void for_each_chunk(int64_t total, int64_t chunk, const Body& body) {
  for (int64_t begin = 0; begin < total; begin += chunk) {
    body(begin, begin + chunk < total ? chunk : total - begin);
  }
}

inline std::span<std::byte> slice(std::span<std::byte> bytes, int64_t begin, int64_t length) {
  return bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(length));
}
inline std::span<const std::byte> slice(std::span<const std::byte> bytes, int64_t begin, int64_t length) {
  return bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(length));
}

// Equally long; `from` may be `to` itself (a block that is in place already).
inline void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) {
  if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace ziggurat::comm
