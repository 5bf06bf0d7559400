#include <ziggurat/objective/next_token.h>

namespace ziggurat::objective {

NextToken::NextToken(const model::Gpt& model, const ObjectiveConfig& config)
    : Objective(model), config_(config) {
  add_part({"cross_entropy"});
  if (config_.z_loss > 0) add_part({"z_loss"});
  add_router_parts();
}

Tensor NextToken::loss(Tape& tape, const model::TokenBatch& batch) {
  Stream& stream = tape.stream();
  const Tensor parts = tape.save(DType::f64, {part_count()});
  const Tensor sums =
      ops::cross_entropy(tape, model().forward(tape, batch), model().head(), batch.targets,
                         {.vocab_size = model().config().vocab_size, .z_loss = config_.z_loss});
  const int64_t of_tokens = config_.z_loss > 0 ? 2 : 1;
  copy(sums.rows(0, of_tokens), parts.rows(0, of_tokens), stream);
  add_router_losses(parts, stream);
  return parts;
}

}  // namespace ziggurat::objective
