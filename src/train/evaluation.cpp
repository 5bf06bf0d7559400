#include <algorithm>
#include <cmath>

#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/tensor/host_values.h>
#include <ziggurat/train/evaluation.h>

namespace ziggurat::train {

namespace {

int64_t micro_batches_of(int64_t sequences, const RunConfig& config) {
  return (sequences + config.batch.micro_batch - 1) / config.batch.micro_batch;
}

int64_t sequences_evaluated(const RunConfig& config, const SampleSource* source) {
  return source == nullptr ? 0 : std::min(config.eval.sequences, source->samples_per_epoch());
}

}  // namespace

int64_t Evaluation::bytes_of_numbers(const RunConfig& config, const RunData& data) {
  const int64_t sequences =
      std::max(sequences_evaluated(config, data.valid.get()), sequences_evaluated(config, data.test.get()));
  return ops::kLossSums * micro_batches_of(sequences, config) * size_of(DType::f64) + Arena::kAlignment;
}

Validation Evaluation::of(const SampleSource* source, Split split) {
  const int64_t sequences = sequences_evaluated(config_, source);
  if (sequences == 0) return {};
  flight_log().begin_phase(Phase::evaluation, training_.cursor.step);
  reach(Site::eval, training_.groups.world().rank(), training_.cursor.step);
  Communicator& dp = training_.groups.dp();
  Stream& stream = executor_.stream;
  const int64_t width = config_.batch.micro_batch;
  const int64_t micro_batches = micro_batches_of(sequences, config_);  // the last one may be smaller
  const int64_t per_rank = (micro_batches + dp.size() - 1) / dp.size();
  // The sums of each micro-batch. One rank fills them, so the sum over ranks is exact.
  const ArenaScope scope(executor_.numbers);
  const Tensor parts = allocate(executor_.numbers, DType::f64, {micro_batches, ops::kLossSums});
  fill_zero(parts, stream);
  for (int64_t i = 0; i < per_rank; ++i) {
    flight_log().note_progress();
    const int64_t mine = dp.rank() * per_rank + i;
    const bool counted = mine < micro_batches;  // the others run too: every rank enters every collective
    const int64_t first = counted ? mine * width : 0;
    const model::TokenBatch batch = batches_.read(*source, first, std::min(width, sequences - first));
    executor_.tape.begin({.seed = static_cast<uint64_t>(config_.seed),
                          .step = training_.cursor.step,
                          .index = mine,
                          .training = false});
    const Tensor sums =
        training_.objective->evaluate(executor_.tape, executor_.upload(executor_.tape, batch));
    if (counted) copy(sums, parts.rows(mine, mine + 1), stream);
  }
  dp.all_reduce(parts, ReduceOp::sum, ReduceOrder::any, stream).wait();
  training_.groups.world().watch(stream);
  const std::vector<double> here = host_values(parts, stream);
  double loss = 0, tokens = 0, correct = 0;
  for (size_t m = 0; m < here.size(); m += ops::kLossSums) {
    loss += here[m], tokens += here[m + 2], correct += here[m + 3];
  }
  check(
      tokens > 0, ErrorKind::data,
      "data.{}: with data.mask_eod_loss none of the tokens of {} sequences counts; name other shards, or set "
      "eval.sequences=0",
      to_string(split), sequences);
  return {loss / tokens, correct / tokens, static_cast<int64_t>(tokens), sequences};
}

bool Evaluation::computes_finite_loss(const SampleSource& source) {
  Communicator &dp = training_.groups.dp(), &world = training_.groups.world();
  const model::TokenBatch batch = batches_.read(source, dp.rank(), 1);
  executor_.tape.begin({.seed = static_cast<uint64_t>(config_.seed),
                        .step = training_.cursor.step,
                        .index = dp.rank(),
                        .count = dp.size(),
                        .training = false});
  const Tensor sums = training_.objective->evaluate(executor_.tape, executor_.upload(executor_.tape, batch));
  double bad = std::isfinite(ops::read_loss(sums, executor_.stream).sum) ? 0 : 1;
  world.all_reduce(Tensor(&bad, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, executor_.stream).wait();
  return bad == 0;
}

}  // namespace ziggurat::train
