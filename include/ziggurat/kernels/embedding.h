// Looks rows up in a table, adds rows of a second table by position; and the backward of both.
// Floor: memory; forward 1 read and 1 write of [rows, cols], backward 2 reads and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct EmbeddingKernels : OnCpu {
  static constexpr const char* kName = "embedding";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct EmbeddingArgs {
  int64_t rows = 0, cols = 0;
  const int32_t* tokens = nullptr;  // [rows], id < the table's rows, not checked here; negative: no row,
                                    // zeros
  int64_t sequence_length = 1;
  const int32_t* positions = nullptr;  // [rows], not checked here; null: i % sequence_length
  const T* table = nullptr;            // [V, cols]
  const T* position_table = nullptr;   // [> every position, cols], or null
  T* y = nullptr;                      // [rows, cols]
};

template <Device D, class T>
void embedding_forward(const EmbeddingArgs<T>& args, Stream& stream);

template <class T>
struct EmbeddingGradArgs {
  int64_t rows = 0, cols = 0;
  const int32_t* tokens = nullptr;  // [rows]
  int64_t sequence_length = 1;
  const int32_t* positions = nullptr;   // as in forward
  const T* dy = nullptr;                // [rows, cols]
  Accum<T>* dtable = nullptr;           // [V, cols], +=; or null
  Accum<T>* dposition_table = nullptr;  // [> every position, cols], +=; or null
};

// Work is cut by columns, and each column adds its rows in order: a token that occurs twice needs no atomics,
// and the bits do not depend on the number of threads.
template <Device D, class T>
void embedding_backward(const EmbeddingGradArgs<T>& args, Stream& stream);

// Ids as rows of a part of a table: id - first, or -1 where that is none of the part's rows, or the id
// `none`.
struct RowsOfPartArgs {
  int64_t n = 0;
  const int32_t* ids = nullptr;  // [n]
  int64_t first = 0, rows = 0;   // of the part
  int32_t none = -1;
  int32_t* row_of_part = nullptr;  // [n]
};
template <Device D>
void rows_of_part(const RowsOfPartArgs& args, Stream& stream);

// positions[i] = (first + i) % length, n of them.
template <Device D>
void count_positions(int64_t first, int64_t n, int64_t length, int32_t* positions, Stream& stream);

}  // namespace ziggurat::kernels
