#include <bit>

#include <ziggurat/optim/schedule.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

DType compute_dtype(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return DType::bf16;
    case Precision::fp32:
      return DType::f32;
    case Precision::fp64:
      return DType::f64;
  }
  return DType::f32;
}

void RunConfig::validate(Problems& problems) const {
  if (batch.sequence_length > model.max_sequence && model.positions == model::Positions::learned) {
    problems.add("batch.sequence_length", fmt::format("expected at most model.max_sequence ({}), got {}",
                                                      model.max_sequence, batch.sequence_length));
  }
  if (batch.micro_batch > 0 && batch.global_batch % batch.micro_batch != 0) {
    problems.add("batch.global_batch", fmt::format("expected a multiple of batch.micro_batch ({}), got {}",
                                                   batch.micro_batch, batch.global_batch));
  }
  if (batch.lanes != 0 && !std::has_single_bit(static_cast<uint64_t>(batch.lanes))) {
    problems.add("batch.lanes", fmt::format("expected a power of two, got {}", batch.lanes));
  }
  if (reproducible == Reproducible::strict && model.moe.balance_scope == moe::BalanceScope::global_batch) {
    problems.add("model.moe.balance_scope",
                 "global_batch depends on the number of ranks by definition; with reproducible: strict use "
                 "micro_batch");
  }
}

void check_for_ranks(const RunConfig& config, int world_size) {
  const BatchConfig& batch = config.batch;
  const BatchRampup rampup(batch.rampup, batch.global_batch);  // throws if it does not end at the full batch
  check_batch(config, world_size, batch.global_batch);
  if (!batch.rampup.enabled()) return;
  for (int64_t samples = batch.rampup.start; samples < batch.global_batch;
       samples += batch.rampup.increment) {
    check_batch(config, world_size, samples);
  }
}

}  // namespace ziggurat::train

namespace ziggurat {
template const TypeInfo& type_info<train::RunConfig>();
}  // namespace ziggurat
