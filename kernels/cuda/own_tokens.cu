// A block takes the rows of one expert, and finds where its own begin by counting those of the experts
// before: E R reads of tokens in all, from the cache, beside E R / 2 of the tables. Another launch first says
// that nothing is anybody's. Floor: memory; 4 bytes of each table's entry.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/own_tokens.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) nobodys_kernel(OwnTokensArgs g) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < g.tokens * g.top_k) g.row_of_choice[i] = -1;
  if (i < g.rows) g.token_of_row[i] = g.choice_of_row[i] = -1;
}

__device__ bool is_own(const OwnTokensArgs& g, int row) {
  const int64_t token = g.all_token_of_row[row] - g.first;
  return token >= 0 && token < g.tokens;
}

__global__ void __launch_bounds__(kThreads) own_tokens_kernel(OwnTokensArgs g) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ int in_warps[kWarps];
  const int64_t expert = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int begin = g.all_offsets[expert], end = g.all_offsets[expert + 1];
  int before = 0;
  for (int r = thread; r < begin; r += kThreads) before += is_own(g, r) ? 1 : 0;
  const int first_row = block_sum<kThreads>(before);

  int row = first_row;
  for (int first = begin; first < end; first += kThreads) {
    const int r = first + thread;
    const bool own = r < end && is_own(g, r);
    const unsigned of_warp = __ballot_sync(kWholeWarp, own);
    if (lane == 0) in_warps[warp] = __popc(of_warp);
    __syncthreads();
    int at = row + __popc(of_warp & ((1u << lane) - 1));
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) at += in_warps[w];
      row += in_warps[w];
    }
    if (own) {
      const int token = static_cast<int>(g.all_token_of_row[r] - g.first), choice = g.all_choice_of_row[r];
      g.token_of_row[at] = token;
      g.choice_of_row[at] = choice;
      g.row_of_choice[token * g.top_k + choice] = at;
    }
    __syncthreads();  // before the next rows' counts
  }
  if (thread > 0) return;
  g.offsets[expert] = first_row;
  g.counts[expert] = row - first_row;
  if (expert == g.experts - 1) g.offsets[g.experts] = row;
}

}  // namespace

template <Device D>
void own_tokens(const OwnTokensArgs& g, Stream& stream) {
  const Span span(stream.profile(), "own_tokens");
  const int64_t entries = g.tokens * g.top_k > g.rows ? g.tokens * g.top_k : g.rows;
  launch(nobodys_kernel, blocks_for(entries, kThreads), kThreads, 0, stream, g);
  launch(own_tokens_kernel, static_cast<unsigned>(g.experts), kThreads, 0, stream, g);
}

template void own_tokens<Device::cuda>(const OwnTokensArgs&, Stream&);

}  // namespace ziggurat::kernels
