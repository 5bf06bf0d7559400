// A routing's tables with as many rows for every expert as it may have at most: where each expert's rows
// begin is then known without its load, and what ranks exchange has one shape in every micro-batch. Floor:
// memory, the tables once.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct ExpertBlocksKernels : OnCpu {
  static constexpr const char* kName = "expert_blocks";
  using Cuda = Dtypes<float>;  // of the weights beside the tables
};

// k choices of each of n tokens; E experts of at most C rows each.
struct ExpertBlocksArgs {
  int64_t tokens = 0, top_k = 1, experts = 0, capacity = 0;
  const int32_t* offsets = nullptr;        // [E+1] of rows by expert
  const int32_t* expert = nullptr;         // [n,k]
  const int32_t* row_of_choice = nullptr;  // [n,k], -1: dropped
  const int32_t* token_of_row = nullptr;   // [offsets of E]
  const int32_t* choice_of_row = nullptr;  // likewise
  int32_t* place_of_choice = nullptr;      // [n,k] in the blocks, -1: dropped
  int32_t* token_of_place = nullptr;       // [E,C], -1: nobody's
  int32_t* choice_of_place = nullptr;      // likewise
};
template <Device D>
void expert_blocks(const ExpertBlocksArgs& args, Stream& stream);

}  // namespace ziggurat::kernels
