#include "comm/host_bytes.h"

#include <algorithm>

#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::comm {
namespace {

constexpr int64_t kBlock = 1 << 16;  // elements; large enough to pay for waking a thread

template <class T>
void reduce_typed(std::span<std::byte> out, std::span<const std::byte> a, std::span<const std::byte> b,
                  ReduceOp op) {
  T* const po = reinterpret_cast<T*>(out.data());
  const T* const pa = reinterpret_cast<const T*>(a.data());
  const T* const pb = reinterpret_cast<const T*>(b.data());
  const auto n = static_cast<int64_t>(out.size() / sizeof(T));
  parallel_for_blocks(n, kBlock, [&](int64_t begin, int64_t end) {
    if (op == ReduceOp::sum) {
      for (int64_t i = begin; i < end; ++i) po[i] = pa[i] + pb[i];
    } else {
      for (int64_t i = begin; i < end; ++i) po[i] = std::max(pa[i], pb[i]);
    }
  });
}

}  // namespace

void reduce_into(std::span<std::byte> out, std::span<const std::byte> a, std::span<const std::byte> b,
                 DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::f32:
      return reduce_typed<float>(out, a, b, op);
    case DType::f64:
      return reduce_typed<double>(out, a, b, op);
    case DType::i32:
      return reduce_typed<int32_t>(out, a, b, op);
    case DType::bf16:
      break;
  }
  fail(ErrorKind::internal, "[comm] no reduction for {}", to_string(dtype));
}

}  // namespace ziggurat::comm
