// Linear layers of a handful of rows, as in generating text: y = activation(x weight[e]^T + bias[e]).
// Floor: memory, one read of the weight of every expert that has rows; 2 rows in out flop hide behind it.
// A matrix product packs its weights first, which here would cost more than the product. Sums run in Accum<T>
// in an order that depends on `in` only: same bits on any number of threads and beside any other rows.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/row_groups.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct FewRowsKernels : OnCpu {
  static constexpr const char* kName = "few_rows";
};

// Up to this many rows of one weight this kernel is the faster way: beyond, its 2 flop per row and weight no
// longer hide behind the read.
constexpr int64_t kFewRows = 8;

template <class T, class TY>
struct FewRowsArgs {
  RowGroups groups;  // of any number of rows each, all of them together
  int64_t rows = 0, in = 0, out = 0;
  const T* x = nullptr;            // [rows, in]
  const T* weight = nullptr;       // [experts, out, in]
  const Accum<T>* bias = nullptr;  // [experts, out], or null
  Activation activation = Activation::none;
  TY* y = nullptr;  // [rows, out], rounded once
};

// Instantiated for (T, TY) = (float, float), (bf16, bf16), (bf16, float), (double, double).
template <Device D, class T, class TY>
void few_rows_linear(const FewRowsArgs<T, TY>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
