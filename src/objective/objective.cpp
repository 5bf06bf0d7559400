#include <ziggurat/objective/objective.h>

namespace ziggurat::objective {

bool Objective::begin_step(int64_t, Stream&) { return false; }

Tensor Objective::evaluate(Tape& tape, const model::TokenBatch& batch, double* token_losses) const {
  ops::LossArgs args;
  args.vocab_size = model_.config().vocab_size;
  args.token_losses = token_losses;
  args.vocabulary = &model_.ranks_of_head();
  return ops::cross_entropy(tape, model_.forward_to_head(tape, batch), model_.head(), batch.targets, args);
}

void Objective::add_router_parts() {
  if (model_.moe_stats().empty()) return;
  add_part({"balance", Mean::over_micro_batches});
  add_part({"router_z", Mean::over_micro_batches});
}

void Objective::add_router_losses(const Tensor& parts, Stream& stream) const {
  if (model_.moe_stats().empty()) return;
  const Tensor of_routers = parts.rows(part_count() - 2, part_count());
  fill_zero(of_routers, stream);
  for (const moe::MoeStats* stats : model_.moe_stats()) stats->add_losses(of_routers, stream);
}

}  // namespace ziggurat::objective
