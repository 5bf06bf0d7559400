#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/ranges.h>

#include <ziggurat/core/error.h>
#include <ziggurat/model/inference_layout.h>

namespace ziggurat::model {

namespace {

std::vector<int> divisors(int64_t n, int64_t most) {
  std::vector<int> all;
  for (int64_t d = 1; d <= std::min(n, most); ++d) {
    if (n % d == 0) all.push_back(static_cast<int>(d));
  }
  return all;
}

// `size` ranks cut each of several things: all of them must be multiples.
struct Cut {
  const char* key;
  int size, ranks;

  void of(const char* what, int64_t n) const {
    check(n % size == 0, ErrorKind::argument,
          "--parallel {}={}: {} ({}) cannot be cut into {} equal parts; choose one of {}", key, size, what, n,
          size, fmt::join(divisors(std::gcd(n, int64_t{ranks}), ranks), ", "));
  }
};

void check_tensor(const ModelConfig& c, int tensor, int ranks) {
  const Cut cut{"tensor", tensor, ranks};
  cut.of("the number of ranks", ranks);
  if (tensor == 1) return;
  cut.of("model.heads", c.heads);
  cut.of("model.hidden", c.hidden);
  if (tensor % c.key_value_heads() != 0) {  // else several ranks hold the same one
    cut.of("the key and value heads", c.key_value_heads());
  }
  cut.of("the vocabulary with its padding", c.padded_vocab());
  if (c.has(FfnKind::dense)) cut.of("the width of MLPs", c.ffn_width());
  if (c.has(FfnKind::residual_moe)) cut.of("the width of the MLPs beside experts", c.residual_width());
  check(c.qk_norm != nn::QkNorm::width, ErrorKind::argument,
        "--parallel tensor={}: this model normalises queries and keys over the width of all heads "
        "(model.qk_norm width), which no rank would have; use tensor=1, and expert_slice where experts are "
        "large",
        tensor);
}

// Each layer's experts over as many groups of `slice` ranks as can be.
ModelConfig spread(const ModelConfig& config, const InferenceLayout& layout, int ranks, int slice) {
  const int groups = ranks / slice;
  return fit_to_ranks(share_experts(config, layout.expert > 0 ? layout.expert : groups), groups);
}

// Whether ranks of a team would hold the same experts.
bool repeats_in_team(const ModelConfig& placed, int tensor, int slice) {
  const std::vector<int> sizes = placed.expert_parallel_sizes();
  return std::any_of(sizes.begin(), sizes.end(),
                     [&](int ep) { return ep * slice % std::max(tensor, slice) != 0; });
}

int least_slice(const ModelConfig& config, const InferenceLayout& layout, int ranks) {
  for (const int slice : divisors(layout.tensor, layout.tensor)) {
    if (!repeats_in_team(spread(config, layout, ranks, slice), layout.tensor, slice)) return slice;
  }
  return layout.tensor;
}

}  // namespace

PlacedModel place(const ModelConfig& config, const InferenceLayout& layout, int ranks) {
  const int tensor = layout.tensor;
  check_tensor(config, tensor, ranks);
  int slice = 1;
  if (config.has_experts()) {
    slice = layout.expert_slice > 0 ? layout.expert_slice : least_slice(config, layout, ranks);
    const Cut cut{"expert_slice", slice, ranks};
    cut.of("the number of ranks", ranks);
    cut.of("the width of experts", config.expert_width());
    cut.of("model.hidden", config.hidden);
    check(tensor % slice == 0 || slice % tensor == 0, ErrorKind::argument,
          "--parallel tensor={},expert_slice={}: one must divide the other; choose expert_slice={}", tensor,
          slice, std::gcd(tensor, slice));
  } else {
    check(layout.expert_slice <= 1 && layout.expert <= 1, ErrorKind::argument,
          "--parallel: this model has no experts; use tensor alone");
  }
  ModelConfig placed = spread(config, layout, ranks, slice);
  check(!repeats_in_team(placed, tensor, slice), ErrorKind::argument,
        "--parallel tensor={},expert={},expert_slice={}: ranks that have the same texts would hold the same "
        "experts of a layer; leave expert and expert_slice out, or set expert_slice={}",
        tensor, layout.expert, slice, tensor);
  ParallelPlan plan(ranks, placed.expert_parallel_sizes(),
                    {.tp = tensor, .expert_tp = slice, .tokens_alike = tensor > 1 || slice > 1});
  return {std::move(placed), std::move(plan)};
}

}  // namespace ziggurat::model
