#include <cmath>

#include <ziggurat/comm/agreement.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/roof.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

namespace {

int64_t lanes_per_rank(const RunConfig& config, int world_size) {
  check_for_ranks(config, world_size);
  return plan_step(config, world_size, 0).lanes_per_rank;
}

// Between the model, which registers the parameters, and those who need their slabs.
nn::ParamStore& finalized(nn::ParamStore& store) {
  store.finalize();
  return store;
}

const RunConfig& checked(const RunConfig& config) {
  check_trainable(config);
  check_tokenizer(config.data, config.model.vocab_size);
  return config;
}

}  // namespace

std::unique_ptr<SampleSource> open_split(const RunConfig& config, Split split, int64_t samples) {
  return open_samples(config.data, split, config.batch.sequence_length, config.model.vocab_size, samples);
}

Trainer::Trainer(const RunConfig& config, Communicator& world)
    : config_(checked(config)),
      world_(world),
      folder_(config.output_folder(), world),
      groups_(world, ParallelPlan(world.size(),
                                  model::fit_to_ranks(config.model, world.size()).expert_parallel_sizes())),
      store_({.compute = compute_dtype(config.precision),
              .seed = static_cast<uint64_t>(config.seed),
              .reproducible = config.reproducible,
              .step_tokens = tokens_of_rank(config, world.size())}),
      model_(model::fit_to_ranks(config.model, world.size()), store_, groups_, config.train.recompute),
      reducer_(finalized(store_), groups_, lanes_per_rank(config, world.size())),
      optimizer_(store_, config.optimizer),
      train_data_(open_split(config, Split::train, samples_of_run(config))),
      valid_data_(open_split(config, Split::valid, config.eval.sequences)),
      test_data_(open_split(config, Split::test, config.eval.sequences)),
      activations_("activations", Arena::all_memory()),
      gradients_("activation gradients", Arena::all_memory()),
      workspace_("workspace", Arena::all_memory()),
      stream_(Device::cpu, config.reproducible),
      tape_(activations_, gradients_, workspace_, stream_),
      batches_(config) {
  tell_short_splits();
  flops_per_token_ = model::count(config_.model, config_.batch.sequence_length).flops_per_token;
  check_same_data();
  resume();
}

void Trainer::check_same_data() const {
  std::vector<NamedValue> values;
  for (const auto& [data, split] : {std::pair(train_data_.get(), Split::train),
                                    {valid_data_.get(), Split::valid},
                                    {test_data_.get(), Split::test}}) {
    values.emplace_back(fmt::format("contents of data.{}", to_string(split)),
                        data == nullptr ? "none" : data->fingerprint());
  }
  check_same_on_all_ranks(world_, values);
}

void Trainer::measure_roof() {
  world_.barrier();  // so that all ranks measure at the same time
  double roof = measure_gemm_roof(store_.options().compute);
  world_.all_reduce(Tensor(&roof, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, stream_).wait();
  roof_ = roof;
  info("{:.0f} GFLOP/s GEMM roof of {} ranks", roof_ / 1e9, world_.size());
}

void Trainer::run() {
  info("{} | {} | {} threads a rank", config_.name, groups_.plan().str(), thread_count());
  const auto tell_goal = [&](const char* when) {
    info("the goal is reached{}: train.tokens {}, {} tokens in {} steps; raise train.tokens to train on",
         when, config_.train.tokens, consumed_samples_ * config_.batch.sequence_length, step_);
  };
  if (finished_) return tell_goal(" already, and nothing is left to do");
  if (step_ == total_steps_) tell_goal(" already");
  if (step_ == 0) report(validate(), Split::valid, "before training");
  while (step_ < total_steps_) {
    const StepRecord done = step();
    report(done);
    if (roof_ == 0) measure_roof();  // not before: a user waits for the first step
    const bool last = step_ == total_steps_;
    if (last || (config_.eval.every > 0 && step_ % config_.eval.every == 0)) {
      report(validate(), Split::valid, last ? "after training" : "so far");
    }
    if (evaluator_ && (last || (config_.eval.tasks_every > 0 && step_ % config_.eval.tasks_every == 0))) {
      report(evaluator_(model_));
    }
    if (last || (config_.checkpoint.every > 0 && step_ % config_.checkpoint.every == 0)) save();
  }
  if (test_data_ != nullptr && config_.eval.sequences > 0) {
    report(evaluate(*test_data_, Split::test), Split::test, "on the test split");
  }
  folder_.write(fmt::format(R"({{"kind":"end","step":{}}})", step_));
  folder_.sync();
  tell_goal("");
}

StepRecord Trainer::step() {
  const Timer timer;
  const StepPlan plan = plan_step(config_, world_.size(), consumed_samples_);
  micro_losses_.assign(static_cast<size_t>(2 * plan.micro_batches), 0.0);
  for (moe::MoeStats* stats : model_.moe_stats()) stats->reset();
  data_seconds_ = 0;
  counted_tokens_ = count_tokens(plan);

  reducer_.begin_step();
  const int64_t micro_batches_per_lane = plan.micro_batches_per_rank / plan.lanes_per_rank;
  for (int64_t i = 0; i < plan.micro_batches_per_rank; ++i) {
    forward_backward(plan, i);
    if ((i + 1) % micro_batches_per_lane == 0) reducer_.end_lane();
  }
  reducer_.reduce(stream_);
  sum_losses(plan);
  const double grad_norm = std::sqrt(reducer_.squared_norm(stream_));
  check(std::isfinite(grad_norm), ErrorKind::numeric,
        "step {}: the gradient is not finite. Lower optimizer.lr, lengthen optimizer.warmup_tokens, or start "
        "again from "
        "a checkpoint with another seed",
        step_ + 1);
  optimizer_.update(plan.lr, grad_norm, stream_);

  consumed_samples_ += plan.samples;
  ++step_;
  return record(plan, grad_norm, timer.seconds());
}

// Known before the first backward, since auxiliary losses are means over micro-batches: no factor at the end
// would suit both.
double Trainer::count_tokens(const StepPlan& plan) {
  if (!config_.data.mask_eod_loss) return static_cast<double>(plan.tokens);
  const Timer timer;
  const int64_t sequences = config_.batch.micro_batch;
  double counted = 0;
  for (int64_t i = 0; i < plan.micro_batches_per_rank; ++i) {
    const int64_t micro_batch = world_.rank() * plan.micro_batches_per_rank + i;
    counted += static_cast<double>(
        batches_.count_targets(*train_data_, plan.first_sample + micro_batch * sequences, sequences));
  }
  data_seconds_ += timer.seconds();
  world_.all_reduce(Tensor(&counted, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, stream_).wait();
  check(
      counted > 0, ErrorKind::data,
      "step {}: with data.mask_eod_loss none of its {} tokens counts, as all follow end-of-document tokens: "
      "look at samples {} to {} of data.train with `ziggurat data sample`, raise batch.global_batch, or set "
      "data.mask_eod_loss=false",
      step_ + 1, plan.tokens, plan.first_sample, plan.first_sample + plan.samples - 1);
  return counted;
}

void Trainer::forward_backward(const StepPlan& plan, int64_t i) {
  const int64_t micro_batch = world_.rank() * plan.micro_batches_per_rank + i;  // numbered over all ranks
  const Timer timer;
  const model::TokenBatch batch = batches_.read(
      *train_data_, plan.first_sample + micro_batch * config_.batch.micro_batch, config_.batch.micro_batch);
  if (i + 1 < plan.micro_batches_per_rank) {
    train_data_->prefetch(plan.first_sample + (micro_batch + 1) * config_.batch.micro_batch,
                          config_.batch.micro_batch);
  }
  data_seconds_ += timer.seconds();

  tape_.begin({.seed = static_cast<uint64_t>(config_.seed),
               .step = step_,
               .index = micro_batch,
               .count = plan.micro_batches});
  const ops::LossResult loss = model_.loss(tape_, batch, 1.0 / counted_tokens_);
  tape_.backward();

  double auxiliary = 0;
  for (const moe::MoeStats* stats : model_.moe_stats()) auxiliary += stats->last_auxiliary_loss;
  micro_losses_[static_cast<size_t>(2 * micro_batch)] = loss.sum;
  micro_losses_[static_cast<size_t>(2 * micro_batch + 1)] = auxiliary;
}

Validation Trainer::validate() {
  if (valid_data_ == nullptr || config_.eval.sequences == 0) return {};
  return evaluate(*valid_data_, Split::valid);
}

void Trainer::tell_short_splits() const {
  for (const auto& [data, split] :
       {std::pair(valid_data_.get(), Split::valid), {test_data_.get(), Split::test}}) {
    if (data == nullptr || data->samples_per_epoch() >= config_.eval.sequences) continue;
    warn("data.{} has {} sequences of {} tokens: eval.sequences {} evaluates all of them", to_string(split),
         data->samples_per_epoch(), config_.batch.sequence_length, config_.eval.sequences);
  }
}

Validation Trainer::evaluate(const SampleSource& source, Split split) {
  const int64_t width = config_.batch.micro_batch;
  const int64_t sequences = std::min(config_.eval.sequences, source.samples_per_epoch());
  const int64_t micro_batches = (sequences + width - 1) / width;  // the last one may be smaller
  const int64_t per_rank = (micro_batches + world_.size() - 1) / world_.size();
  // Per micro-batch: loss, tokens, right guesses. Each is filled by one rank, so the sum over ranks is exact.
  std::vector<double> parts(static_cast<size_t>(3 * micro_batches), 0.0);
  for (int64_t i = 0; i < per_rank; ++i) {
    const int64_t mine = world_.rank() * per_rank + i;
    const bool counted = mine < micro_batches;  // the others run too: every rank enters every collective
    const int64_t first = counted ? mine * width : 0;
    const model::TokenBatch batch = batches_.read(source, first, std::min(width, sequences - first));
    tape_.begin(
        {.seed = static_cast<uint64_t>(config_.seed), .step = step_, .index = mine, .training = false});
    const ops::LossResult loss = model_.loss(tape_, batch, 0.0);
    if (!counted) continue;
    double* part = &parts[static_cast<size_t>(3 * mine)];
    part[0] = loss.sum, part[1] = static_cast<double>(loss.tokens),
    part[2] = static_cast<double>(loss.correct);
  }
  world_
      .all_reduce(Tensor(parts.data(), DType::f64, {3 * micro_batches}), ReduceOp::sum, ReduceOrder::any,
                  stream_)
      .wait();
  double loss = 0, tokens = 0, correct = 0;
  for (size_t m = 0; m < parts.size(); m += 3)
    loss += parts[m], tokens += parts[m + 1], correct += parts[m + 2];
  check(
      tokens > 0, ErrorKind::data,
      "data.{}: with data.mask_eod_loss none of the tokens of {} sequences counts; name other shards, or set "
      "eval.sequences=0",
      to_string(split), sequences);
  return {loss / tokens, correct / tokens, static_cast<int64_t>(tokens), sequences};
}

}  // namespace ziggurat::train
