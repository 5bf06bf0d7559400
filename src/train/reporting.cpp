// What the trainer tells: the record of a step, its progress line, validations.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include <ziggurat/core/log.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

// Over the ranks, each of which filled its own places; before the update, which a bad loss must not reach.
void Trainer::sum_losses(const StepPlan& plan) {
  world_
      .all_reduce(Tensor(micro_losses_.data(), DType::f64, {2 * plan.micro_batches}), ReduceOp::sum,
                  ReduceOrder::any, stream_)
      .wait();
  check(std::all_of(micro_losses_.begin(), micro_losses_.end(),
                    [](double loss) { return std::isfinite(loss); }),
        ErrorKind::numeric,
        "step {}: the loss is not finite. Lower optimizer.lr, lengthen optimizer.warmup_tokens, look at the "
        "loss's own factors (model.moe.balance_coefficient, model.moe.z_coefficient), or start again from a "
        "checkpoint with another seed",
        step_ + 1);
}

StepRecord Trainer::record(const StepPlan& plan, double grad_norm, double seconds) {
  StepRecord r;
  for (int64_t m = 0; m < plan.micro_batches;
       ++m) {  // in the order of the global numbers: the same on every layout
    r.loss += micro_losses_[static_cast<size_t>(2 * m)];
    r.auxiliary_loss +=
        micro_losses_[static_cast<size_t>(2 * m + 1)] / static_cast<double>(plan.micro_batches);
  }
  r.loss /= counted_tokens_;
  r.step = step_;
  r.total_steps = total_steps_;
  r.samples = consumed_samples_;
  r.tokens = consumed_samples_ * config_.batch.sequence_length;
  r.total_tokens = config_.train.tokens;
  r.lr = plan.lr;
  r.grad_norm = grad_norm;
  r.step_seconds = seconds;
  r.data_seconds = data_seconds_;
  r.tokens_per_second = static_cast<double>(plan.tokens) / seconds;
  r.flops_per_second = r.tokens_per_second * flops_per_token_;
  if (roof_ > 0) r.roof_fraction = r.flops_per_second / roof_;
  // The largest memory of any rank; and did rank 0 have to make the folder again?
  double of_all[] = {static_cast<double>(resident_bytes()), folder_.keep(step_) ? 1.0 : 0.0};
  world_.all_reduce(Tensor(of_all, DType::f64, {2}), ReduceOp::max, ReduceOrder::any, stream_).wait();
  r.memory_bytes = static_cast<int64_t>(of_all[0]);
  if (of_all[1] > 0) remake_log_file();
  r.layers = reduce_moe_stats();
  seconds_per_step_ = seconds_per_step_ == 0 ? seconds : 0.9 * seconds_per_step_ + 0.1 * seconds;
  r.eta_seconds = seconds_per_step_ * static_cast<double>(total_steps_ - step_);
  return r;
}

std::vector<LayerLoad> Trainer::reduce_moe_stats() {
  const std::vector<moe::MoeStats*> all = model_.moe_stats();
  if (all.empty()) return {};
  std::vector<double> sums;
  for (const moe::MoeStats* s : all) {
    const double scalars[] = {double(s->tokens), double(s->choices), double(s->dropped),      s->entropy_sum,
                              s->balance_sum,    s->z_sum,           double(s->micro_batches)};
    sums.insert(sums.end(), std::begin(scalars), std::end(scalars));
    sums.insert(sums.end(), s->counts_before.begin(), s->counts_before.end());
  }
  world_
      .all_reduce(Tensor(sums.data(), DType::f64, {static_cast<int64_t>(sums.size())}), ReduceOp::sum,
                  ReduceOrder::any, stream_)
      .wait();
  std::vector<LayerLoad> loads;
  const double* next = sums.data();
  for (const moe::MoeStats* s : all) {
    const double tokens = next[0], choices = next[1], dropped = next[2], micro_batches = next[6];
    LayerLoad load;
    load.layer = s->layer;
    load.entropy = next[3] / tokens;
    load.balance_loss = next[4] / micro_batches;
    load.z_loss = next[5] / micro_batches;
    load.drop_rate = dropped / choices;
    load.tokens_per_expert.assign(next + 7, next + 7 + s->counts_before.size());
    double busiest = 0;
    for (const double n : load.tokens_per_expert) busiest = std::max(busiest, n);
    load.imbalance = busiest * static_cast<double>(load.tokens_per_expert.size()) / choices;
    next += 7 + s->counts_before.size();
    loads.push_back(std::move(load));
  }
  return loads;
}

void Trainer::report(const StepRecord& r) {
  folder_.write(to_json(r));
  if (r.step % config_.log.every == 0 || r.step == r.total_steps || r.step == 1) {
    info("{}", progress_line(r, config_.log.exact));
  }
}

void Trainer::report(const Validation& v, Split split, const char* what) {
  if (v.tokens == 0) return;
  const std::string loss =
      config_.log.exact ? fmt::format("{:.6f} ({:a})", v.loss, v.loss) : fmt::format("{:.4f}", v.loss);
  info("validation {}: loss {} | perplexity {:.2f} | accuracy {:.1f}% | {} tokens", what, loss,
       std::exp(v.loss), 100 * v.accuracy, v.tokens);
  const nlohmann::ordered_json j = {{"kind", "validation"},
                                    {"split", to_string(split)},
                                    {"step", step_},
                                    {"loss", v.loss},
                                    {"loss_hex", fmt::format("{:a}", v.loss)},
                                    {"accuracy", v.accuracy},
                                    {"tokens", v.tokens},
                                    {"sequences", v.sequences}};
  folder_.write(j.dump());
}

void Trainer::report(const std::vector<NamedScore>& scores) {
  nlohmann::ordered_json j = {{"kind", "tasks"}, {"step", step_}};
  for (const NamedScore& score : scores) {
    info("step {}: {} {:.4f}", step_, score.name, score.value);
    j["scores"][score.name] = score.value;
  }
  folder_.write(j.dump());
}

}  // namespace ziggurat::train
