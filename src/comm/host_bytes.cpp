#include "comm/host_bytes.h"

#include <algorithm>
#include <bit>

#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::comm {
namespace {

constexpr int64_t kBlock = 1 << 16;   // elements; large enough to pay for waking a thread
constexpr int64_t kTreePiece = 4096;  // bytes; an L1 cache holds the inner sums of hundreds of values

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

// Adds pieces of `piece_bytes`, so that inner sums stay in L1. Of each level of the tree two are alive: one
// of a left and one of a right subtree. The root is written last: it may be one of the values.
class Tree {
 public:
  Tree(const std::vector<std::span<const std::byte>>& values, int64_t piece_bytes, DType dtype, ReduceOp op)
      : values_(values), piece_bytes_(piece_bytes), dtype_(dtype), op_(op) {
    const auto levels =
        static_cast<int64_t>(std::bit_width(values.size() - 1)) - 1;  // between root and leaves
    memory_.resize(static_cast<size_t>(2 * levels * piece_bytes));
  }

  void reduce(std::span<std::byte> out) {
    const auto total = static_cast<int64_t>(out.size());
    for_each_chunk(total, piece_bytes_, [&](int64_t at, int64_t n) {
      at_ = at, n_ = n;
      reduce_range(slice(out, at, n), 0, values_.size(), 0);
    });
  }

 private:
  void reduce_range(std::span<std::byte> out, size_t begin, size_t end, int64_t level) {
    const size_t middle = (begin + end) / 2;
    const auto left = node(begin, middle, level, 0), right = node(middle, end, level, 1);
    reduce_into(out, left, right, dtype_, op_);
  }

  std::span<const std::byte> node(size_t begin, size_t end, int64_t level, int side) {
    if (end - begin == 1) return slice(values_[begin], at_, n_);
    const std::span<std::byte> sum = slice(std::span(memory_), (2 * level + side) * piece_bytes_, n_);
    reduce_range(sum, begin, end, level + 1);
    return sum;
  }

  const std::vector<std::span<const std::byte>>& values_;
  int64_t piece_bytes_;
  DType dtype_;
  ReduceOp op_;
  std::vector<std::byte> memory_;
  int64_t at_ = 0, n_ = 0;  // the piece
};

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

void reduce_tree(std::span<std::byte> out, const std::vector<std::span<const std::byte>>& values, DType dtype,
                 ReduceOp op) {
  // Two values need no memory between: one pass.
  const int64_t piece_bytes = values.size() == 2 ? static_cast<int64_t>(out.size()) : kTreePiece;
  Tree(values, std::max<int64_t>(piece_bytes, 1), dtype, op).reduce(out);
}

}  // namespace ziggurat::comm
