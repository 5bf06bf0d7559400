// Linear layers of any number of rows in inference, from weights in panels:
//   y = activation(x weight[e]^T + bias[e]).
// A panel is kPanelRows rows of a weight [out, in], the last one maybe fewer. Their elements of one column
// lie side by side, so that a product reads a panel from its first byte to its last, once for a tile of rows
// of x: for one row that is all that the memory has to give, for many it is a matrix product near its peak.
// The panels take the place of the rows, in no more memory. Floor: 2 rows in out flop; and memory, one read
// of the weight of every expert that has rows. Sums run in Accum<T>, over the columns in order: a row has the
// same bits beside any other rows, on any number of threads.
#pragma once

#include <cstdint>

#include <ziggurat/build_config.h>
#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/int8_weights.h>
#include <ziggurat/kernels/row_groups.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct PanelLinearKernels : OnCpu {
  static constexpr const char* kName = "panel_linear";
};

// Of f32: four vectors of AVX-512, two of AVX2, times a tile of rows fill the registers.
constexpr int64_t kPanelRows = kVectorBytes == 64 ? 64 : 16;

// Where element (row, column) of a weight [out, in] lies. The columns of bf16 come in pairs, as products of
// pairs take them.
template <class T>
constexpr int64_t place_in_panels(int64_t row, int64_t column, int64_t out, int64_t in) {
  const int64_t first = row / kPanelRows * kPanelRows,
                width = out - first < kPanelRows ? out - first : kPanelRows;
  const int64_t panel = first * in, r = row - first;
  if (sizeof(T) != 2 || (in % 2 == 1 && column == in - 1)) return panel + column * width + r;
  return panel + column / 2 * 2 * width + 2 * r + column % 2;
}

// Rearranges `count` weights [out, in], one after another.
template <Device D, class T>
void to_panels(T* weights, int64_t count, int64_t out, int64_t in);

// The nearest Int8Weights of weights [count, out, in], in memory of Int8Weights::bytes(count out, in): scales
// = the largest |weight| of the row / 127, numbers rounded to the nearest. For T = float and bf16.
template <Device D, class T>
void quantise(const T* weights, int64_t count, int64_t out, int64_t in, void* memory);
constexpr int64_t place_of_number(int64_t row, int64_t column, int64_t out, int64_t in) {
  return place_in_panels<int8_t>(row, column, out, in);
}

template <class T, class TY>
struct PanelLinearArgs {
  RowGroups groups;  // of any number of rows each
  int64_t rows = 0, in = 0, out = 0;
  const T* x = nullptr;            // [rows, in]
  const T* weight = nullptr;       // [experts] in panels of [out, in]
  const Accum<T>* bias = nullptr;  // [experts, out], or null
  Activation activation = Activation::none;
  TY* y = nullptr;        // [rows, out], rounded once
  Int8Weights int8 = {};  // instead of `weight`; not for f64. Scales multiply the sums, before the bias
};

// Instantiated for (T, TY) = (float, float), (bf16, bf16), (bf16, float), (double, double).
template <Device D, class T, class TY>
void panel_linear(const PanelLinearArgs<T, TY>& args, Arena& workspace, Stream& stream);

// Embedding (kernels/embedding.h) from a table [out, in] in panels: y [rows, in] = its rows `tokens`, and
// rows of a second table, as it is, by position. The same bits. A negative token: zeros.
template <class T>
struct PanelGatherArgs {
  int64_t rows = 0, in = 0, out = 0;
  const int32_t *tokens = nullptr, *positions = nullptr;  // [rows], not checked here
  const T* table = nullptr;
  const T* position_table = nullptr;  // [> every position, in], or null
  T* y = nullptr;
  Int8Weights int8 = {};  // instead of `table`, as of PanelLinearArgs
};
template <Device D, class T>
void panel_gather(const PanelGatherArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
