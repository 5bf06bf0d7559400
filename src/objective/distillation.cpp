#include <ziggurat/objective/distillation.h>
#include <ziggurat/ops/distillation.h>

namespace ziggurat::objective {

Distillation::Distillation(const model::Gpt& student, const ObjectiveConfig& config,
                           const DistilConfig& distil, int64_t train_tokens, LoadTeacher load, Device device)
    : Objective(student),
      config_(config),
      distil_(distil),
      train_tokens_(train_tokens),
      load_(std::move(load)),
      arena_("weight of the teacher", Arena::kAlignment, device),
      weight_there_(allocate(arena_, DType::f64, {1})) {
  add_part({"cross_entropy"});
  if (config_.z_loss > 0) add_part({"z_loss"});
  add_part({"distillation"});
  add_router_parts();
}

bool Distillation::begin_step(int64_t tokens, Stream& stream) {
  const bool had_teacher = static_cast<bool>(teacher_);
  const double weight = distil_weight(distil_.weight, tokens, train_tokens_);
  if (weight > 0 && !teacher_) take_teacher();
  if (weight == 0 && teacher_) {
    stream.wait();
    teacher_.reset();
  }
  const bool changed = weight != weight_;
  weight_ = weight;
  if (changed && !is_meta(weight_there_.device())) {
    copy(Tensor(&weight_, DType::f64, {1}), weight_there_, stream);
    stream.wait();
  }
  return had_teacher != static_cast<bool>(teacher_);
}

// Of a run that has not begun there is nothing to tell.
Objective::State Distillation::state() const {
  return teacher_hash_.empty() ? State{} : State{{kTeacher, teacher_hash_}};
}

void Distillation::resume(const State& state) {
  const auto teacher = state.find(kTeacher);
  teacher_hash_ = teacher == state.end() ? "" : teacher->second;
}

// A planned one has no weights.
void Distillation::take_teacher() {
  teacher_ = load_();
  if (!teacher_ || teacher_->weight_hash().empty()) return;
  check(teacher_hash_.empty() || teacher_hash_ == teacher_->weight_hash(), ErrorKind::config,
        "distil.teacher: the run has learned from a teacher whose weights have the hash {}, those of {} have "
        "{}: "
        "name the same teacher, computing in the same distil.precision, go on without one by a "
        "distil.weight.until "
        "that has passed, or start afresh with another output folder or checkpoint.resume=never",
        teacher_hash_, distil_.teacher, teacher_->weight_hash());
  teacher_hash_ = teacher_->weight_hash();
}

Tensor Distillation::loss(Tape& tape, const model::TokenBatch& batch) {
  Stream& stream = tape.stream();
  const Tensor parts = tape.save(DType::f64, {part_count()});
  const ops::LossArgs args{.vocab_size = model().config().vocab_size,
                           .z_loss = config_.z_loss,
                           .vocabulary = &model().ranks_of_head()};
  const int64_t of_tokens = config_.z_loss > 0 ? 2 : 1;
  const Tensor part = parts.rows(of_tokens, of_tokens + 1);
  Tensor sums;
  if (teacher_) {
    const model::Gpt& teacher = teacher_->model();
    const Tensor hidden = tape.apart([&](Tape& t) { return teacher.forward_to_head(t, batch); });
    sums = ops::distillation(tape, model().forward_to_head(tape, batch), model().head(), batch.targets, args,
                             {hidden, &teacher.head()}, {distil_.temperature, weight_there_.data<double>()});
    copy(sums.rows(ops::kLossSums, ops::kDistillationSums), part, stream);
  } else {
    sums =
        ops::cross_entropy(tape, model().forward_to_head(tape, batch), model().head(), batch.targets, args);
    fill_zero(part, stream);
  }
  copy(sums.rows(0, of_tokens), parts.rows(0, of_tokens), stream);
  add_router_losses(parts, stream);
  return parts;
}

}  // namespace ziggurat::objective
