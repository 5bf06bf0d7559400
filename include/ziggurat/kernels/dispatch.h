// Moving rows between token order and expert order by index tables, and the weighted sum back.
// Every output row is written by one thread, in a fixed order: bits never depend on the number of threads.
// Floor: memory, one read and one write of each row moved.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct DispatchKernels : OnCpu {
  static constexpr const char* kName = "dispatch";
  using Cuda = Dtypes<float, bf16>;
};

// y[r] = x[from[r]]; rows whose table says -1 stay as they are.
template <class T>
struct GatherRowsArgs {
  int64_t rows = 0, width = 0;
  const T* x = nullptr;           // [*, width]
  const int32_t* from = nullptr;  // [rows]
  T* y = nullptr;                 // [rows, width]
};
template <Device D, class T>
void gather_rows(const GatherRowsArgs<T>& args, Stream& stream);

// y[to[r]] = x[r] (or += with accumulate), but for rows whose table says -1; `to` has no row twice.
template <class T>
struct ScatterRowsArgs {
  int64_t rows = 0, width = 0;
  const T* x = nullptr;         // [rows, width]
  const int32_t* to = nullptr;  // [rows]
  bool accumulate = false;
  T* y = nullptr;  // [*, width]
};
template <Device D, class T>
void scatter_rows(const ScatterRowsArgs<T>& args, Stream& stream);

// y[s] = sum over j of weights[s,j] x[row[s,j]], in order of j, summed in Accum<T> and rounded once; a row of
// -1 counts as zeros. Without weights all are 1.
template <class T>
struct CombineRowsArgs {
  int64_t tokens = 0, top_k = 1, width = 0;
  const T* x = nullptr;               // [*, width]
  const int32_t* row = nullptr;       // [tokens, top_k]
  const Accum<T>* weights = nullptr;  // [tokens, top_k] or null
  bool accumulate = false;            // add to y
  T* y = nullptr;                     // [tokens, width]
};
template <Device D, class T>
void combine_rows(const CombineRowsArgs<T>& args, Stream& stream);

template <class T>
struct CombineRowsGradArgs {
  CombineRowsArgs<T> forward;  // y is not read
  const T* dy = nullptr;       // [tokens, width]
  T* dx = nullptr;             // rows named by forward.row = weights[s,j] dy[s]; or null
  bool accumulate_dx = false;
  Accum<T>* dweights = nullptr;  // [tokens, top_k] = x[row[s,j]] . dy[s], 0 where dropped; or null
  bool accumulate_dweights = false;
};
template <Device D, class T>
void combine_rows_backward(const CombineRowsGradArgs<T>& args, Stream& stream);

// How rows that arrived by (source, local expert) are put in the order (local expert, source).
struct ArrivalOrderArgs {
  int64_t ranks = 1, experts = 0;     // P sources, L local experts
  int64_t rows = 0;                   // R = sum of arriving; in blocks P L block
  const int32_t* arriving = nullptr;  // [P,L] rows
  int64_t sources = 1;                // P: groups are told apart by source (RowGroups); 1: they are not
  int32_t* offsets = nullptr;         // [L sources + 1]
  int32_t* arrival_of_row = nullptr;  // [R]; -1 behind the last row
  int32_t* row_of_arrival = nullptr;  // [R] the inverse; -1 for what holds no row
  int64_t block = 0;  // places that each source's rows for each expert have, at least as many; 0: no more
};
template <Device D>
void order_arrivals(const ArrivalOrderArgs& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
