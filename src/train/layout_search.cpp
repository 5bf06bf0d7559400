#include <algorithm>

#include <ziggurat/optim/rules.h>
#include <ziggurat/train/layout_search.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/record_step.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

RunConfig with_layout(const RunConfig& config, const Layout& layout) {
  RunConfig other = config;
  other.batch.micro_batch = layout.micro_batch;
  other.train.recompute = layout.recompute;
  other.parallel.tensor = layout.tensor, other.parallel.zero = layout.zero;
  for (model::BlockRun& run : other.model.blocks) {
    for (model::BlockSpec& block : run.pattern) {
      block.expert_parallel = static_cast<int>(
          std::clamp<int64_t>(layout.expert_parallel, 1, std::max<int64_t>(block.experts, 1)));
    }
  }
  return other;
}

namespace {

// Whether ranks can cut it; the device has nothing to do with it.
bool can_be_cut(RunConfig config, int tp) {
  config.parallel.tensor = tp;
  config.device = Device::cpu;
  Problems all;
  config.validate(all);
  return all.count() == 0;
}

// All that share the global batch, without their times and memory.
std::vector<Layout> candidates(const RunConfig& config, const ClusterConfig& cluster, int most_ranks) {
  int64_t experts = 1;  // the most of a layer
  for (const model::BlockSpec& layer : config.model.layers()) experts = std::max(experts, layer.experts);
  std::vector<int> cuts;
  for (int tp = 1; tp <= cluster.ranks_per_node; tp *= 2) {
    if (tp == 1 || can_be_cut(config, tp)) cuts.push_back(tp);
  }
  std::vector<Layout> found;
  for (int ranks = most_ranks; ranks >= 1 && ranks >= most_ranks / 4; ranks /= 2) {
    for (const int tp : cuts) {
      if (ranks % tp != 0) continue;
      const int dp = ranks / tp;
      for (int ep = 1; ep <= experts && ep <= ranks; ep *= 2) {
        // A rank of several that share a micro-batch has a part of it: smaller ones are other layouts' too.
        for (int64_t micro_batch = tp; micro_batch * dp <= config.batch.global_batch; micro_batch *= 2) {
          if (config.batch.global_batch % (micro_batch * dp) != 0) continue;
          for (const bool recompute : {false, true}) {
            found.push_back({.ranks = ranks,
                             .expert_parallel = ep,
                             .micro_batch = micro_batch,
                             .recompute = recompute,
                             .tensor = tp,
                             .zero = config.parallel.zero,
                             .time = {}});
          }
        }
      }
    }
    if (ranks % 2 != 0) break;
  }
  return found;
}

// With the lowest stage of ZeRO that fits, or the highest that there is.
Layout measured(const RunConfig& config, const ClusterConfig& cluster, Layout layout) {
  RunConfig run;
  const auto set_zero = [&](int zero) {
    layout.zero = zero;
    run = with_layout(config, layout);
    run.batch.rampup = {};  // the full batch is what is asked about
    layout.memory = device_memory(run, layout.ranks);
    layout.fits = layout.memory <= cluster.device.memory;
  };
  const int least = layout.zero, most = takes_matrices(config.optimizer.kind) ? least : std::max(least, 2);
  set_zero(least);
  if (!layout.fits && least < most) set_zero(most);  // most of those that do not fit never do
  if (layout.fits && layout.zero > least + 1) {
    const Layout highest = layout;
    set_zero(least + 1);
    if (!layout.fits) layout = highest, run = with_layout(config, layout), run.batch.rampup = {};
  }
  layout.time = simulate_step(run, layout.ranks, cluster);
  return layout;
}

}  // namespace

double device_memory(const RunConfig& config, int ranks) {
  RunConfig full = config;
  full.batch.rampup = {};  // whose smaller batches not all these ranks may share
  const MemoryPlan plan = plan_memory(full, ranks);
  return static_cast<double>(plan.without_process() - plan.packed_weights);
}

std::vector<Layout> search_layouts(const RunConfig& config, const ClusterConfig& cluster, int most_ranks,
                                   const std::function<void(int64_t done, int64_t total)>& progress) {
  check_ranks(cluster, most_ranks);
  check(cluster.software.tensor_parallel == 1, ErrorKind::config,
        "software.tensor_parallel: {} cuts matrices over ranks, and --search plans the memory of ranks that "
        "have them whole; set it to 1, or leave out --search",
        cluster.software.tensor_parallel);
  std::vector<Layout> found = candidates(config, cluster, most_ranks);
  check(!found.empty(), ErrorKind::config,
        "batch.global_batch: {} sequences cannot be shared by {} ranks, nor by half or a quarter of them: "
        "set it to a multiple of {}, or give other --ranks",
        config.batch.global_batch, most_ranks, most_ranks);
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = measured(config, cluster, found[i]);
    if (progress) progress(static_cast<int64_t>(i + 1), static_cast<int64_t>(found.size()));
  }
  std::stable_sort(found.begin(), found.end(), [](const Layout& a, const Layout& b) {
    return a.fits != b.fits ? a.fits : a.time.samples_per_second > b.time.samples_per_second;
  });
  return found;
}

}  // namespace ziggurat::train
