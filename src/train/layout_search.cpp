#include <algorithm>

#include <ziggurat/train/layout_search.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/record_step.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

RunConfig with_layout(const RunConfig& config, const Layout& layout) {
  RunConfig other = config;
  other.batch.micro_batch = layout.micro_batch;
  other.train.recompute = layout.recompute;
  for (model::BlockRun& run : other.model.blocks) {
    for (model::BlockSpec& block : run.pattern) {
      block.expert_parallel = static_cast<int>(
          std::clamp<int64_t>(layout.expert_parallel, 1, std::max<int64_t>(block.experts, 1)));
    }
  }
  return other;
}

double device_memory(const RunConfig& config, int ranks) {
  RunConfig full = config;
  full.batch.rampup = {};  // whose smaller batches not all these ranks may share
  const MemoryPlan plan = plan_memory(full, ranks);
  return static_cast<double>(plan.without_process() - plan.packed_weights);
}

std::vector<Layout> search_layouts(const RunConfig& config, const ClusterConfig& cluster, int most_ranks) {
  check_ranks(cluster, most_ranks);
  check(cluster.software.tensor_parallel == 1, ErrorKind::config,
        "software.tensor_parallel: {} cuts matrices over ranks, and --search plans the memory of ranks that "
        "have them whole; set it to 1, or leave out --search",
        cluster.software.tensor_parallel);
  int64_t experts = 1;  // the most of a layer
  for (const model::BlockSpec& layer : config.model.layers()) experts = std::max(experts, layer.experts);
  std::vector<Layout> found;
  for (int ranks = most_ranks; ranks >= 1 && ranks >= most_ranks / 4; ranks /= 2) {
    for (int ep = 1; ep <= experts && ep <= ranks; ep *= 2) {
      for (int64_t micro_batch = 1; micro_batch * ranks <= config.batch.global_batch; micro_batch *= 2) {
        if (config.batch.global_batch % (micro_batch * ranks) != 0) continue;
        for (const bool recompute : {false, true}) {
          Layout layout{.ranks = ranks,
                        .expert_parallel = ep,
                        .micro_batch = micro_batch,
                        .recompute = recompute,
                        .time = {}};
          RunConfig run = with_layout(config, layout);
          run.batch.rampup = {};  // the full batch is what is asked about
          layout.memory = device_memory(run, ranks);
          layout.fits = layout.memory <= cluster.device.memory;
          layout.time = simulate_step(run, ranks, cluster);
          found.push_back(std::move(layout));
        }
      }
    }
    if (ranks % 2 != 0) break;
  }
  check(!found.empty(), ErrorKind::config,
        "batch.global_batch: {} sequences cannot be shared by {} ranks, nor by half or a quarter of them: "
        "set it to a multiple of {}, or give other --ranks",
        config.batch.global_batch, most_ranks, most_ranks);
  std::stable_sort(found.begin(), found.end(), [](const Layout& a, const Layout& b) {
    return a.fits != b.fits ? a.fits : a.time.samples_per_second > b.time.samples_per_second;
  });
  return found;
}

}  // namespace ziggurat::train
