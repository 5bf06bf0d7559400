#include <ziggurat/objective/next_token.h>
#include <ziggurat/ops/label_smoothing.h>

namespace ziggurat::objective {

NextToken::NextToken(const model::Gpt& model, const ObjectiveConfig& config)
    : Objective(model), config_(config) {
  add_part({"cross_entropy"});
  if (config_.z_loss > 0) add_part({"z_loss"});
  if (config_.label_smoothing > 0) add_part({"label_smoothing"});
  add_router_parts();
}

Tensor NextToken::loss(Tape& tape, const model::TokenBatch& batch) {
  Stream& stream = tape.stream();
  const Tensor parts = tape.save(DType::f64, {part_count()});
  const Var hidden = model().forward_to_head(tape, batch);
  const ops::LossArgs args{.vocab_size = model().config().vocab_size,
                           .z_loss = config_.z_loss,
                           .vocabulary = &model().ranks_of_head()};
  const bool several = tape.recording() && config_.label_smoothing > 0;  // ops that write the head's gradient
  if (several) tape.before_write(model().head());
  const Tensor sums = ops::cross_entropy(tape, hidden, model().head(), batch.targets, args);
  const int64_t of_tokens = config_.z_loss > 0 ? 2 : 1;
  copy(sums.rows(0, of_tokens), parts.rows(0, of_tokens), stream);
  if (config_.label_smoothing > 0) {
    const Tensor sum =
        ops::label_smoothing(tape, hidden, model().head(), batch.targets, args, config_.label_smoothing);
    copy(sum, parts.rows(of_tokens, of_tokens + 1), stream);
  }
  if (several) tape.after_write(model().head());
  add_router_losses(parts, stream);
  return parts;
}

}  // namespace ziggurat::objective
