// Of a routing's tables, those of consecutive tokens alone: where ranks share the tokens of a micro-batch,
// each knows the routing of all and sends its own.
// Floor: memory, the tables once.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct OwnTokensKernels : OnCpu {
  static constexpr const char* kName = "own_tokens";
  using Cuda = Dtypes<float>;  // of the weights beside the tables
};

// k choices of each of n tokens from `first` on; E experts.
struct OwnTokensArgs {
  int64_t first = 0, tokens = 0, top_k = 1, experts = 0;
  const int32_t* all_offsets = nullptr;        // [E+1] rows of all tokens, by expert
  const int32_t* all_token_of_row = nullptr;   // [rows of all]
  const int32_t* all_choice_of_row = nullptr;  // likewise
  int32_t* counts = nullptr;                   // [E] rows of the n tokens
  int32_t* offsets = nullptr;                  // [E+1]
  int32_t* row_of_choice = nullptr;            // [n,k], -1: dropped
  int64_t rows = 0;                            // that the next two have room for: min(n k, rows of all)
  int32_t* token_of_row = nullptr;             // [rows], in [0, n), in the order of all; then -1
  int32_t* choice_of_row = nullptr;            // likewise
};
template <Device D>
void own_tokens(const OwnTokensArgs& args, Stream& stream);

}  // namespace ziggurat::kernels
