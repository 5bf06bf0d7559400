// Weights in the matrix library's own order, and products with them.
//
// A product reads its weight in tiles. From a row-major weight the library makes them anew in every call;
// here they are made once after every change of the weight. Products of few rows, as experts have, gain up to
// two times. Those of many rows gain 5 to 8 % forward, in f32 nothing backward, and only if enough rows share
// a copy: making it takes as long as multiplying it by some hundred rows. Costs memory for every copy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct WeightProductKernels : OnCpu {
  static constexpr const char* kName = "weight_product";
  using Cuda = Dtypes<float, bf16>;
};

enum class Side { forward, backward };  // y = x W^T, and dx = dy W
enum class Copies { forward, both };    // for which sides there are copies

// The copies that pay for a weight of T whose products have many rows each, and `rows` rows together between
// two changes of it.
template <class T>
std::optional<Copies> copies_that_pay(int64_t rows);

class PackedWeights {
 public:
  // Whether this CPU and the library have packed products for matrices [rows, in] cut from [total, in] of T,
  // which may be float, bf16 or double (of which there are none).
  template <class T>
  static bool supported(int64_t total, int64_t rows, int64_t in, Copies copies);

  // For copies of `weight` [total, in], cut into matrices of `rows` rows, the last maybe of fewer, in memory
  // of `arena`; nothing is packed yet. The copies are of the type in which the products are computed: bf16,
  // or f32 where the CPU has no bf16 products. The weight outlives them.
  template <class T>
  PackedWeights(const T* weight, int64_t total, int64_t rows, int64_t in, Copies copies, Arena& arena);

  bool has(Side side) const { return side == Side::forward || sides_ == Copies::both; }

  // The weight has changed: copies are made anew when next asked for.
  void expire();

  // Packs matrix `index` for `side` unless its copy is up to date. Not for one copy from two threads at once.
  void prepare(int64_t index, Side side);
  // Makes what the first prepare() of matrix `index` would make on this thread.
  void reserve(int64_t index, Side side) const;
  bool prepared(int64_t index, Side side) const { return current_[slot(index, side)] != 0; }

  // The prepared copy of matrix `index` for `side`. Throws Error(internal) if it is out of date.
  const void* copy(int64_t index, Side side) const;

  int64_t count() const { return (total_ + rows_ - 1) / rows_; }
  int64_t out(int64_t index) const {
    return std::min(rows_, total_ - index * rows_);
  }  // rows of matrix `index`
  int64_t in() const { return in_; }

 private:
  static size_t slot(int64_t index, Side side) {
    return static_cast<size_t>(2 * index + (side == Side::forward ? 0 : 1));
  }

  bool is_bf16_;
  Copies sides_;
  const void* weight_;
  int64_t total_, rows_, in_;
  std::vector<void*> copies_;  // by slot
  std::vector<char> current_;  // by slot: whether the copy is up to date
};

// C [rows, n] = A [rows, k] op(W) + (accumulate ? C : 0), where forward: k = in, n = out, and backward: k =
// out, n = in.
template <class T, class TC>
struct WeightProduct {
  Side side = Side::forward;
  int64_t rows = 0, out = 0, in = 0;
  const T* a = nullptr;
  const T* weight = nullptr;        // [out, in]; not read if there is a packed copy for this side
  PackedWeights* packed = nullptr;  // or null: the product is taken from `weight`
  int64_t index = 0;                // of the matrix in `packed`
  TC* c = nullptr;
  bool accumulate = false;
};

// The same product from `weight`, as gemm() takes it.
template <class T, class TC>
GemmArgs<T, TC> without_copy(const WeightProduct<T, TC>& g) {
  const bool forward = g.side == Side::forward;
  const int64_t k = forward ? g.in : g.out, n = forward ? g.out : g.in;
  return {false, forward, g.rows, n, k, g.a, k, g.weight, g.in, g.c, n, g.accumulate};
}

// Instantiated as gemm() is. A strict stream needs packed = null: the library cuts a packed product by the
// number of threads. So does Device::cuda, whose library reads weights as they lie.
template <Device D, class T, class TC>
void weight_product(const WeightProduct<T, TC>& args, Arena& workspace, Stream& stream);

// One product on the calling thread alone, with operands of the dtype of the copies: (float, float), (bf16,
// float), (bf16, bf16). The copy must be prepared.
template <Device D, class T, class TC>
void packed_product_on_this_thread(const WeightProduct<T, TC>& args);

// Makes what the first such product of this shape would make on this thread. Pointers are not read.
template <Device D, class T, class TC>
void reserve_product_on_this_thread(const WeightProduct<T, TC>& args);

}  // namespace ziggurat::kernels
