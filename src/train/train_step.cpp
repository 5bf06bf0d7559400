#include <algorithm>
#include <cmath>
#include <numeric>

#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/train/spoil.h>
#include <ziggurat/train/train_step.h>

namespace ziggurat::train {

namespace {

int64_t most_micro_batches(const RunConfig& config) {
  return config.batch.global_batch / config.batch.micro_batch + 1;
}

}  // namespace

bool StepResult::finite() const {
  return std::isfinite(grad_norm) &&
         std::all_of(losses.begin(), losses.end(), [](double of_one) { return std::isfinite(of_one); });
}

double StepResult::auxiliary_loss() const { return std::accumulate(parts.begin() + 1, parts.end(), 0.0); }

TrainStep::TrainStep(const RunConfig& config, Training& training, Executor& executor)
    : config_(config),
      training_(training),
      executor_(executor),
      reducer_(training.store, training.groups,
               plan_step(config, training.groups.dp().size(), 0).lanes_per_rank,
               training.optimizer.clip_groups()),
      graphs_(training.store, why_no_graphs(config, training.groups.world().size(),
                                            training.groups.world().devices_exchange())
                                  .empty()),
      latest_losses_(allocate(executor.numbers, DType::f64, {training.objective->part_count()})),
      micro_losses_(allocate(executor.numbers, DType::f64,
                             {most_micro_batches(config), training.objective->part_count()})) {
  executor_.tape.set_follower(&reducer_);
  executor_.stream.set_weight_rows(tokens_of_rank(config, training.groups.dp().size()));
}

TrainStep::~TrainStep() { executor_.tape.set_follower(nullptr); }

int64_t TrainStep::bytes_of_numbers(const RunConfig& config, const objective::Objective& objective) {
  return (most_micro_batches(config) + 1) * objective.part_count() * size_of(DType::f64) +
         2 * Arena::kAlignment;
}

StepResult TrainStep::run(const StepPlan& plan, double counted_tokens, const ReadBatch& read) {
  accumulate(plan, counted_tokens, read);
  StepResult result = finish(plan, counted_tokens);
  if (result.updated) training_.cursor.advance(plan.samples);
  return result;
}

int64_t TrainStep::first_micro_batch(const StepPlan& plan, int shift) const {
  const Communicator& dp = training_.groups.dp();
  return (dp.rank() + shift) % dp.size() * plan.micro_batches_per_rank;
}

Tensor TrainStep::losses_of(const StepPlan& plan, int shift) const {
  const int64_t first = first_micro_batch(plan, shift);
  return micro_losses_.rows(first, first + plan.micro_batches_per_rank);
}

// Faults on purpose come before ranks' gradients are added, and look at whole weights. A device's stream may
// be recorded.
bool TrainStep::exchanges_behind() const {
  return config_.parallel.overlap && config_.device == Device::cpu && !injecting();
}

void TrainStep::accumulate(const StepPlan& plan, double counted_tokens, const ReadBatch& read) {
  // What passes through the host would hold a GPU up.
  const bool beside = config_.parallel.overlap && training_.groups.world().devices_exchange() && !injecting();
  accumulate(plan, counted_tokens, read, 0, {}, beside || exchanges_behind());
}

void TrainStep::accumulate_alone(const StepPlan& plan, double counted_tokens, const ReadBatch& read,
                                 int shift, const After& after) {
  accumulate(plan, counted_tokens, read, shift, after, false);
}

void TrainStep::accumulate(const StepPlan& plan, double counted_tokens, const ReadBatch& read, int shift,
                           const After& after, bool behind) {
  Stream& stream = executor_.stream;
  const int rank = training_.groups.world().rank();
  const int64_t number = training_.cursor.step + 1;
  fill_zero(micro_losses_, stream);
  for (moe::MoeStats* stats : training_.model.moe_stats()) stats->reset(stream);

  const int64_t tokens = training_.cursor.samples * config_.batch.sequence_length;
  if (training_.objective->begin_step(tokens, stream)) graphs_.forget();
  reducer_.begin_step(stream);
  const int64_t micro_batches_per_lane = plan.micro_batches_per_rank / plan.lanes_per_rank;
  for (int64_t i = 0; i < plan.micro_batches_per_rank; ++i) {
    reach(Site::compute, rank, number);
    const int64_t micro_batch = first_micro_batch(plan, shift) + i;
    const bool last = i + 1 == plan.micro_batches_per_rank;
    reducer_.begin_micro_batch(stream, behind && last);
    forward_backward(plan, counted_tokens, micro_batch, i == 0, behind && last, static_cast<bool>(after),
                     read);
    reducer_.end_micro_batch();
    if (after && !last) after(micro_batch);
    if ((i + 1) % micro_batches_per_lane == 0) reducer_.end_lane(stream);
  }
  const Tensor first_losses = losses_of(plan, shift).rows(0, 1).reshape({training_.objective->part_count()});
  spoil_results(training_, first_losses.rows(0, 1), number, stream);
  if (after) after(first_micro_batch(plan, shift) + plan.micro_batches_per_rank - 1);
}

StepResult TrainStep::finish(const StepPlan& plan, double counted_tokens, const StepLimits& limits) {
  Stream& stream = executor_.stream;
  const int rank = training_.groups.world().rank();
  const int64_t number = training_.cursor.step + 1;
  reach(Site::reduce, rank, number);
  reducer_.reduce(stream);
  // Each rank filled its own places. Before the update, which a bad loss must not reach.
  const Tensor losses = micro_losses_.rows(0, plan.micro_batches);
  training_.groups.dp().all_reduce(losses, ReduceOp::sum, ReduceOrder::any, stream).wait();
  const Tensor squared_norms = reducer_.squared_norms(stream);
  reach(Site::update, rank, number);
  Optimizer& optimizer = training_.optimizer;
  const int64_t updates = optimizer.steps_done();
  StepResult result =
      told(plan, counted_tokens,
           optimizer.update(plan.lr, squared_norms, losses, executor_.workspace, stream,
                            {limits.grad_norm, limits.loss * counted_tokens}, exchanges_behind()));
  if (result.updated) training_.model.balance_experts(stream);
  if (!result.updated) optimizer.set_steps_done(updates);
  return result;
}

void TrainStep::forward_backward(const StepPlan& plan, double counted_tokens, int64_t micro_batch, bool first,
                                 bool reduces, bool by_kernels, const ReadBatch& read) {
  flight_log().note_progress();
  const model::TokenBatch batch = read(micro_batch);
  Tape& tape = executor_.tape;
  Stream& stream = executor_.stream;
  tape.begin({.seed = static_cast<uint64_t>(config_.seed),
              .step = training_.cursor.step,
              .index = micro_batch,
              .count = plan.micro_batches,
              .first = first,
              .token_weight = 1.0 / counted_tokens,
              .shard = training_.groups.tp().rank()});
  const model::TokenBatch there = executor_.upload(tape, batch);
  const auto work = [&] {
    const Tensor parts = training_.objective->loss(tape, there);
    tape.backward();
    copy(parts, latest_losses_, stream);
    reducer_.join();
  };
  if (by_kernels) {
    work();
  } else if (!graphs_.run(tape, there, reduces, work)) {
    reducer_.repeat();
  }
  copy(latest_losses_, micro_losses_.rows(micro_batch, micro_batch + 1).reshape(latest_losses_.shape()),
       stream);
}

// What the host reads of a step, once.
StepResult TrainStep::told(const StepPlan& plan, double counted_tokens, const Tensor& clipped) {
  Stream& stream = executor_.stream;
  const Tensor losses = micro_losses_.rows(0, plan.micro_batches);
  StepResult result;
  result.losses.resize(static_cast<size_t>(losses.numel()));
  std::vector<double> norms_and_scales(static_cast<size_t>(clipped.numel()));
  training_.groups.world().watch(stream);
  copy(losses, Tensor(result.losses.data(), DType::f64, losses.shape()), stream);
  copy(clipped, Tensor(norms_and_scales.data(), DType::f64, clipped.shape()), stream);
  stream.wait();
  result.grad_norm = norms_and_scales[0];
  result.updated = std::isfinite(norms_and_scales[1]);
  for (size_t i = 2; i < norms_and_scales.size(); i += 2) result.group_norms.push_back(norms_and_scales[i]);
  const std::vector<objective::LossPart>& parts = training_.objective->parts();
  for (size_t part = 0; part < parts.size(); ++part) {
    double sum = 0;  // by their global numbers: the same on every layout
    for (size_t m = part; m < result.losses.size(); m += parts.size()) sum += result.losses[m];
    const bool of_tokens = parts[part].mean == objective::Mean::over_tokens;
    result.parts.push_back(sum / (of_tokens ? counted_tokens : static_cast<double>(plan.micro_batches)));
  }
  result.loss = result.parts.front();
  return result;
}

}  // namespace ziggurat::train
