#include <bit>

#include <ziggurat/config/units.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {

MemoryPlan plan_rank(const RunConfig& config, int world_size, int rank) {
  const model::ModelConfig model = model::fit_to_ranks(config.model, world_size);
  const ParallelPlan layout(world_size, model.expert_parallel_sizes());
  const ProcessGroups groups = ProcessGroups::planned(layout, rank);
  nn::ParamStore store({.compute = compute_dtype(config.precision),
                        .device = Device::meta,
                        .reproducible = config.reproducible,
                        .step_tokens = tokens_of_rank(config, world_size)});
  const model::Gpt gpt(model, store, groups, config.train.recompute);
  store.finalize();

  MemoryPlan plan;
  for (const nn::ParamGroup& g : store.groups()) {
    plan.masters += g.master.bytes();
    plan.compute_copies += g.compute ? g.compute.bytes() : 0;
    plan.gradients += g.gradient.bytes();
    plan.moments += g.moment1.bytes() + g.moment2.bytes();
  }
  plan.packed_weights = store.packed_bytes();
  const StepPlan step = plan_step(config, world_size, 0);
  plan.gradients *=
      std::bit_width(static_cast<uint64_t>(step.lanes_per_rank));  // 1, and one a level of the lane tree
  plan.local_parameters = store.local_parameters();
  plan.global_parameters = store.global_parameters();

  Arena activations("activations", Arena::kUnlimited, Device::meta),
      gradients("activation gradients", Arena::kUnlimited, Device::meta);
  Arena workspace("workspace", Arena::kUnlimited, Device::meta);
  Stream stream(Device::meta, config.reproducible);
  Tape tape(activations, gradients, workspace, stream);
  tape.begin({});
  const model::TokenBatch batch{nullptr, nullptr, config.batch.micro_batch, config.batch.sequence_length};
  gpt.loss(tape, batch, 1.0);
  tape.backward();
  plan.activations = activations.high_water();
  plan.activation_gradients = gradients.high_water();
  plan.workspace = workspace.high_water();
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

}  // namespace ziggurat::train
