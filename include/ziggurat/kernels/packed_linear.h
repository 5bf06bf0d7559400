// Linear layers of many rows in inference, from packed weights: y = activation(x weight^T + bias).
// Every product is of kPackedRows rows with one packed matrix, on one thread; zeros follow the last rows. So
// all products with a matrix are the same one: a row has the same bits beside any other rows, on any number
// of threads. Bias and activation come while the sums of a product are in cache, which are rounded once.
// Floor: 2 rows in out flop.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct PackedLinearKernels : OnCpu {
  static constexpr const char* kName = "packed_linear";
  using Cpu = Dtypes<float, bf16>;
};

// Enough rows for a product to hide the read of its weights, in bf16 on a CPU with matrix registers too; few
// enough not to lose much where fewer are left.
constexpr int64_t kPackedRows = 64;
// Rows of the weight in a packed matrix: with `in` of 768 to 3,072 it stays in a level 2 cache while product
// after product takes it, and a few rows of x still are work for many threads.
constexpr int64_t kPackedColumns = 256;

template <class T>
struct PackedLinearArgs {
  int64_t rows = 0, in = 0, out = 0;
  const T* x = nullptr;             // [rows, in]
  PackedWeights* packed = nullptr;  // forward copies of a weight [out, in] in any number of matrices
  const Accum<T>* bias = nullptr;   // [out], or null
  Activation activation = Activation::none;
  T* y = nullptr;  // [rows, out]
};

// Instantiated for float and bf16.
template <Device D, class T>
void packed_linear(const PackedLinearArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
