#include <algorithm>
#include <bit>
#include <map>
#include <string>

#include "train/dry_rank.h"
#include "train/saved_tensors.h"
#include <ziggurat/config/units.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/micro_batch_graphs.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {

// What writing the file's header and the manifest takes for each slice, by what malloc() was asked for:
// models of 200 and 1740 slices.
constexpr int64_t kBytesOfARecord = 2048;

// Of micro-batches of so many kernels each: of a step's first, its later ones, and its last where that is
// another.
int64_t bytes_of_graphs(const RunConfig& config, int world_size, const StepPlan& step, int64_t kernels) {
  if (!why_no_graphs(config, world_size, /*devices_exchange=*/true).empty()) return 0;
  const bool last_differs = world_size > 1 && config.parallel.overlap;
  return std::min<int64_t>(last_differs ? 3 : 2, step.micro_batches_per_rank) * kernels * kGraphNodeBytes;
}

MemoryPlan plan_rank(const RunConfig& config, int world_size, int rank) {
  DryRank built(config, world_size, rank);
  const nn::ParamStore& store = built.training.store;

  MemoryPlan plan;
  for (const nn::ParamGroup& g : store.groups()) {
    plan.values += g.values.bytes();
    plan.gradients += g.gradient.bytes();
  }
  plan.masters = built.training.optimizer.state().bytes_of_masters();
  plan.moments = built.training.optimizer.state().bytes_of_moments();
  if (config.checkpoint.async) {
    for (const TensorSlice& slice :
         tensors_to_write(built.training.optimizer.state(), built.training.groups)) {
      plan.staged += slice.data.bytes() + kBytesOfARecord;
    }
  }
  const StepPlan step = plan_step(config, built.training.groups.dp().size(), 0);
  plan.gradients *=
      std::bit_width(static_cast<uint64_t>(step.lanes_per_rank));  // 1, and one a level of the lane tree
  plan.local_parameters = store.local_parameters();
  plan.global_parameters = store.global_parameters();

  const Device device = store.options().device;
  parallel::GradientReducer reducer(built.training.store, built.training.groups, step.lanes_per_rank,
                                    built.training.optimizer.clip_groups());
  const int64_t launched = device_work().planned;
  built.micro_batch(reducer);
  plan.graphs = bytes_of_graphs(config, world_size, step, device_work().planned - launched);
  plan.gradients += reducer.lent_bytes();
  plan.packed_weights = built.executor.stream.cache_bytes();
  const objective::Teacher* const teacher = built.training.objective->teacher();
  if (teacher != nullptr) plan.teacher = teacher->bytes();
  built.update();
  if (planned(device) == Device::cuda) built.evaluation();  // a device's arenas don't grow
  const Executor::Memory taken = built.executor.high_water();
  plan.activations = taken.activations;
  plan.activation_gradients = taken.activation_gradients;
  plan.workspace = taken.workspace;
  // Balance is assumed; only ranks that share experts notice its absence.
  std::vector<int> shared = built.training.groups.plan().ep_sizes();
  if (teacher != nullptr) {
    const std::vector<int> its = teacher->model().config().expert_parallel_sizes();
    shared.insert(shared.end(), its.begin(), its.end());
  }
  if (planned(device) == Device::cuda &&
      std::any_of(shared.begin(), shared.end(), [](int ep) { return ep > 1; })) {
    plan.spare = plan.activations + plan.activation_gradients + plan.workspace;
  }
  return plan;
}

}  // namespace

MemoryPlan plan_memory(const RunConfig& config, int world_size, int rank) {
  constexpr int64_t kAddresses = int64_t{1} << 47;  // bytes of a process on x86-64
  const MemoryPlan plan = plan_rank(config, world_size, rank);
  check(plan.total() <= kAddresses, ErrorKind::config,
        "model.hidden, model.blocks or batch.micro_batch: on {} ranks, one needs more memory ({}) than a "
        "process can address; make the model smaller, or share its experts over more ranks (expert_parallel)",
        world_size, format_bytes(static_cast<double>(plan.total())));
  return plan;
}

std::vector<RankClass> plan_every_rank(const RunConfig& config, int world_size) {
  std::map<std::string, RankClass> classes;            // by the tensors that their ranks hold
  std::map<std::string, std::vector<int>> holders_of;  // of each row of each tensor that ranks share
  const ParallelPlan layout = layout_of(config, world_size);
  std::map<std::string, int> ep_of;
  for (int rank = 0; rank < world_size; ++rank) {
    const DryRank built(config, world_size, rank);
    std::string held;
    for (const nn::ParamEntry& entry : built.training.store.entries()) {
      const nn::ParamSpec& spec = entry.spec;
      held += fmt::format("{} {};", spec.name, entry.param.value.shape());
      if (spec.expert_parallel == 0) continue;
      std::vector<int>& holders = holders_of[spec.name];
      holders.resize(static_cast<size_t>(spec.global_shape[0]));
      for (int64_t row = spec.row_begin; row < spec.row_end; ++row) ++holders[static_cast<size_t>(row)];
      ep_of[spec.name] = spec.expert_parallel;
    }
    classes[held].ranks.push_back(rank);
  }
  for (const auto& [name, holders] : holders_of) {
    const int copies = layout.expert_dp(ep_of[name]).size * layout.expert_tp().size * layout.pp().size;
    for (size_t row = 0; row < holders.size(); ++row) {
      check(holders[row] == copies, ErrorKind::internal, "[plan] {} ranks hold row {} of {}, expected {}: {}",
            holders[row], row, name, copies, layout.str());
    }
  }
  std::vector<RankClass> planned;
  for (auto& [held, ranks_alike] : classes) {
    ranks_alike.memory = plan_memory(config, world_size, ranks_alike.ranks.front());
    planned.push_back(std::move(ranks_alike));
  }
  std::sort(planned.begin(), planned.end(),
            [](const RankClass& a, const RankClass& b) { return a.ranks.front() < b.ranks.front(); });
  return planned;
}

}  // namespace ziggurat::train
