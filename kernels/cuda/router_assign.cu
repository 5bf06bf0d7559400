// From choices to rows of experts. A block takes an expert, and finds its choices by reading all of them,
// twice: 8 E S k bytes from the L2 cache, in a fixed order and without atomics on device memory (256 experts
// and 16384 tokens of 8 choices: 268 MB, 60 us at 5 TB/s). Which choices keep their place is decided by the
// capacity's best key, eight bits at a time. Floor: memory; the tables are 4 S k bytes each.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/token_warp.h>

#include <ziggurat/kernels/router.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreadsOfAssign = kWarp * kWarp;  // a warp has one lane for each of its warps

// Which choice = token * k + j is number `slot`, of all groups of tokens.
__device__ __forceinline__ int choice_of_slot(const RouterAssignArgs<float>& g, int slot) {
  if (g.order == SlotOrder::token_first) return slot;
  const int tokens = static_cast<int>(g.tokens / g.groups), k = static_cast<int>(g.top_k);
  const int group = slot / (tokens * k), in_group = slot % (tokens * k);
  return group * tokens * k + in_group % tokens * k + in_group / tokens;
}

// of_group [groups, E] choices. Block (expert, group).
__global__ void __launch_bounds__(kThreadsOfAssign)
    count_choices_kernel(RouterAssignArgs<float> g, int32_t* of_group) {
  const int expert = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y),
            choices = static_cast<int>(g.tokens / g.groups * g.top_k), end = (group + 1) * choices;
  int count = 0;
  for (int c = group * choices + static_cast<int>(threadIdx.x); c < end; c += kThreadsOfAssign)
    count += g.expert[c] == expert;
  count = block_sum<kThreadsOfAssign>(count);
  if (threadIdx.x == 0) of_group[group * g.experts + expert] = count;
}

// How many threads before this one say yes, after `before`, to which the block's number is added. All come.
__device__ __forceinline__ int numbered(bool yes, int& before) {
  __shared__ int counts[kWarp];
  const unsigned in_warp = __ballot_sync(kWholeWarp, yes);
  if (lane() == 0) counts[warp()] = __popc(in_warp);
  __syncthreads();
  const int count = counts[lane()];
  const int number = before + __reduce_add_sync(kWholeWarp, lane() < warp() ? count : 0) +
                     __popc(in_warp & ((1u << lane()) - 1u));
  before += __reduce_add_sync(kWholeWarp, count);
  __syncthreads();  // before the next call writes
  return number;
}

// The order of an expert's candidates, best last: by score, a NaN or a negative one as the least; of equal
// scores the lower choice is better. No two are equal.
__device__ __forceinline__ unsigned long long key_of(const RouterAssignArgs<float>& g, int expert,
                                                     int choice) {
  const int64_t element = choice / g.top_k * g.experts + expert;
  const float score = g.drop == DropPolicy::random ? g.keys[element] : g.probabilities[element];
  const unsigned place = score >= 0 ? __float_as_uint(score + 0.0f) + 1 : 0;  // + 0: -0 is 0
  return static_cast<unsigned long long>(place) << 32 | ~static_cast<unsigned>(choice);
}

// The capacity's largest key of n > capacity candidates. All threads come, and get it.
__device__ unsigned long long least_kept_key(const RouterAssignArgs<float>& g, int expert,
                                             const int32_t* candidates, int n) {
  constexpr int kDigits = 256;
  __shared__ unsigned counts[kDigits];
  __shared__ unsigned digit, left;
  unsigned long long prefix = 0, mask = 0;
  auto wanted = static_cast<unsigned>(g.capacity);  // of those with the prefix
  if (wanted == 0) return ~0ull;                    // larger than any key
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (threadIdx.x < kDigits) counts[threadIdx.x] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreadsOfAssign) {
      const unsigned long long key = key_of(g, expert, candidates[i]);
      if ((key & mask) == prefix) atomicAdd(&counts[key >> shift & 0xff], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned above = 0;
      int d = kDigits - 1;
      while (above + counts[d] < wanted) above += counts[d--];
      digit = static_cast<unsigned>(d);
      left = wanted - above;
    }
    __syncthreads();
    prefix |= static_cast<unsigned long long>(digit) << shift;
    mask |= 0xffull << shift;
    wanted = left;
    __syncthreads();  // before the next digit is written
  }
  return prefix;
}

// candidates [S k]: all choices, sorted by expert, in slot order. of_group [groups, E]: choices; where there
// is one group, g.counts_before.
__global__ void __launch_bounds__(kThreadsOfAssign)
    assign_rows_kernel(RouterAssignArgs<float> g, const int32_t* of_group, int32_t* candidates) {
  const int expert = static_cast<int>(blockIdx.x), choices = static_cast<int>(g.tokens * g.top_k);
  const int thread = static_cast<int>(threadIdx.x);
  const bool drops = g.drop != DropPolicy::none;
  const auto capacity = static_cast<int>(g.capacity);
  const auto kept_of = [&](int count) { return drops ? min(count, capacity) : count; };

  const int experts = static_cast<int>(g.experts), groups = static_cast<int>(g.groups);
  int lower_choices = 0, lower_rows = 0;  // of the experts before
  for (int i = thread; i < groups * experts; i += kThreadsOfAssign) {
    if (i % experts >= expert) continue;
    lower_choices += of_group[i];
    lower_rows += kept_of(of_group[i]);
  }
  candidates += block_sum<kThreadsOfAssign>(lower_choices);
  int row = block_sum<kThreadsOfAssign>(lower_rows);
  int own_choices = 0, own_rows = 0;
  for (int group = 0; group < groups; ++group) {
    const int count = of_group[group * experts + expert];
    own_choices += count;
    own_rows += kept_of(count);
  }
  if (thread == 0) {
    if (groups > 1) g.counts_before[expert] = own_choices;
    g.counts[expert] = own_rows;
    g.offsets[expert] = row;
  }
  if (expert == experts - 1) {  // whose rows are the last
    const int rows = row + own_rows;
    if (thread == 0) g.offsets[g.experts] = rows;
    for (int64_t i = rows + thread; i < g.rows; i += kThreadsOfAssign)
      g.token_of_row[i] = g.choice_of_row[i] = -1;
  }

  int found = 0;
  for (int slot = 0; slot < choices; slot += kThreadsOfAssign) {
    const int choice = slot + thread < choices ? choice_of_slot(g, slot + thread) : -1;
    const bool mine = choice >= 0 && g.expert[choice] == expert;
    const int number = numbered(mine, found);
    if (mine) candidates[number] = choice;
  }
  __syncthreads();

  for (int group = 0; group < groups; ++group) {
    const int n = of_group[group * experts + expert];
    const bool full = drops && n > capacity, by_key = full && g.drop != DropPolicy::position;
    const unsigned long long least = by_key ? least_kept_key(g, expert, candidates, n) : 0;
    for (int first = 0; first < n; first += kThreadsOfAssign) {
      const int i = first + thread;
      const int choice = i < n ? candidates[i] : -1;
      bool kept = choice >= 0;
      if (full) kept = kept && (by_key ? key_of(g, expert, choice) >= least : i < capacity);
      const int at = numbered(kept, row);
      if (choice >= 0) g.row_of_choice[choice] = kept ? at : -1;
      if (kept) {
        g.token_of_row[at] = choice / static_cast<int>(g.top_k);
        g.choice_of_row[at] = choice % static_cast<int>(g.top_k);
      }
    }
    candidates += n;
  }
}

}  // namespace

template <Device D, class T>
void router_assign(const RouterAssignArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "router_assign");
  const ArenaScope scope(workspace);
  auto* const candidates = workspace.take_on_device<int32_t>(g.tokens * g.top_k);
  auto* const of_group =
      g.groups == 1 ? g.counts_before : workspace.take_on_device<int32_t>(g.groups * g.experts);
  const auto experts = static_cast<unsigned>(g.experts), groups = static_cast<unsigned>(g.groups);
  launch(count_choices_kernel, dim3(experts, groups), kThreadsOfAssign, 0, stream, g, of_group);
  launch(assign_rows_kernel, experts, kThreadsOfAssign, 0, stream, g, of_group, candidates);
}

template void router_assign<Device::cuda>(const RouterAssignArgs<float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
