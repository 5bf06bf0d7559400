#include <bit>

#include "train/dry_rank.h"
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/train/record_step.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

StepWork record_step(const RunConfig& config, int world_size, int rank) {
  DryRank built(config, world_size, rank);
  const StepPlan step = plan_step(config, built.training.groups.dp().size(),
                                  config.train.tokens / config.batch.sequence_length);
  parallel::GradientReducer reducer(built.training.store, built.training.groups, step.lanes_per_rank,
                                    built.training.optimizer.clip_groups());
  Stream& stream = built.executor.stream;
  StepWork work;
  work.micro_batches = step.micro_batches_per_rank;
  work.samples = static_cast<double>(step.samples);
  work.tokens = static_cast<double>(step.tokens);

  WorkRecord record;
  reducer.begin_step(stream);
  built.micro_batch(reducer);
  work.model_flops = work.tokens * (model::count(config.model, config.batch.sequence_length).flops_per_token +
                                    teacher_flops(built.training, config));
  work.first = record.take();
  if (work.micro_batches > 1) {
    built.micro_batch(reducer);
    work.later = record.take();
  }
  reducer.reduce(stream);
  work.reduction = record.take();
  built.training.optimizer.update(step.lr, reducer.squared_norms(stream), Tensor(), built.executor.workspace,
                                  stream);
  work.update = record.take();
  return work;
}

StepTime simulate_step(const RunConfig& config, int ranks, const ClusterConfig& cluster) {
  check_ranks(cluster, ranks);  // before the batch is, which more ranks may share no better
  check(config.precision == Precision::bf16, ErrorKind::config,
        "precision: a cluster's device.peak_flops is of products in bf16, this run's are not: give "
        "precision=bf16");
  const int tp = cluster.software.tensor_parallel;
  check(tp == 1 || !config.model.has_experts(), ErrorKind::config,
        "software.tensor_parallel: {} cuts dense models only, and {} has experts; set it to 1", tp,
        config.model.name);
  check(
      tp == 1 || config.parallel.tensor == 1, ErrorKind::config,
      "parallel.tensor: {} cuts the model as Ziggurat does, software.tensor_parallel: {} as other software: "
      "set one of them to 1",
      config.parallel.tensor, tp);
  if (tp == 1) return time_of(record_step(config, ranks), cluster, layout_of(config, ranks));
  const ParallelPlan layout(ranks, model::fit_to_ranks(config.model, ranks).expert_parallel_sizes(),
                            {.tp = tp});
  return time_of(record_step(config, layout.dp().size), cluster, layout);
}

}  // namespace ziggurat::train
