// Which layout of a run is the fastest on a cluster, among those that its memory holds.
#pragma once

#include <functional>
#include <vector>

#include <ziggurat/plan/step_time.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

struct Layout {
  int ranks = 1;
  int expert_parallel = 1;  // of every layer at most; a layer of fewer experts is shared by as many ranks
  int64_t micro_batch = 1;
  bool recompute = false;
  int tensor = 1;  // parallel.tensor
  int zero = 0;    // parallel.zero
  StepTime time;
  double memory = 0;  // bytes of a rank
  bool fits = false;
};

// The config with that layout.
RunConfig with_layout(const RunConfig& config, const Layout& layout);

// All that can share the config's global batch, of a ramp-up the last one: from `ranks` down to a quarter by
// halves, tensor-parallel sizes inside a node that divide the model, expert-parallel sizes and micro-batches
// by powers of two, with and without recompute; each with the lowest stage of ZeRO from the config's on that
// fits. Those that fit come first, each part by samples/s. Throws Error(config) if there is none, or the
// cluster has fewer ranks, or its software cuts matrices over ranks, whose memory nothing here plans.
// `progress(done, total)` hears of layouts.
std::vector<Layout> search_layouts(const RunConfig& config, const ClusterConfig& cluster, int ranks,
                                   const std::function<void(int64_t done, int64_t total)>& progress = {});

// Bytes of a rank's device: of a plan for the CPU without the copies of weights that only the CPU keeps.
double device_memory(const RunConfig& config, int ranks);

}  // namespace ziggurat::train
