#include <ziggurat/comm/agreement.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/train/run_data.h>

namespace ziggurat::train {

namespace {

void check_same_data(const RunData& data, Communicator& world) {
  std::vector<NamedValue> values;
  for (const auto& [source, split] : {std::pair(data.train.get(), Split::train),
                                      {data.valid.get(), Split::valid},
                                      {data.test.get(), Split::test}}) {
    values.emplace_back(fmt::format("contents of data.{}", to_string(split)),
                        source == nullptr ? "none" : source->fingerprint());
  }
  check_same_on_all_ranks(world, values);
}

void tell_short_splits(const RunData& data, const RunConfig& config) {
  for (const auto& [source, split] :
       {std::pair(data.valid.get(), Split::valid), {data.test.get(), Split::test}}) {
    if (source == nullptr || source->samples_per_epoch() >= config.eval.sequences) continue;
    warn("data.{} has {} sequences of {} tokens: eval.sequences {} evaluates all of them", to_string(split),
         source->samples_per_epoch(), config.batch.sequence_length, config.eval.sequences);
  }
}

}  // namespace

std::unique_ptr<SampleSource> open_split(const RunConfig& config, Split split, int64_t samples) {
  return open_samples(config.data, split, config.batch.sequence_length, config.model.vocab_size, samples);
}

RunData::RunData(const RunConfig& config, Communicator& world)
    : train(open_split(config, Split::train, samples_of_run(config))),
      valid(open_split(config, Split::valid, config.eval.sequences)),
      test(open_split(config, Split::test, config.eval.sequences)) {
  tell_short_splits(*this, config);
  check_same_data(*this, world);
}

void RunData::reach_end(const RunConfig& config, const Cursor& cursor) {
  const int64_t samples = samples_of_run(config, cursor.samples) + cursor.skipped_samples();
  if (samples > samples_of_run(config)) train = open_split(config, Split::train, samples);
}

StepFeed::StepFeed(const RunConfig& config, Communicator& dp) : config_(config), dp_(dp), batches_(config) {}

double StepFeed::begin(const SampleSource& source, const StepPlan& plan, int64_t step, Stream& stream) {
  seconds_ = 0;
  if (!config_.data.mask_eod_loss && !config_.data.ul2.enabled()) return static_cast<double>(plan.tokens);
  const Timer timer;
  const int64_t sequences = config_.batch.micro_batch;
  double counted = 0;
  for (int64_t i = 0; i < plan.micro_batches_per_rank; ++i) {
    const int64_t first = plan.first_sample + (first_of_rank(plan) + i) * sequences;
    counted += static_cast<double>(batches_.count_targets(source, first, sequences));
  }
  seconds_ += timer.seconds();
  dp_.all_reduce(Tensor(&counted, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, stream).wait();
  check(
      counted > 0, ErrorKind::data,
      "step {}: with data.mask_eod_loss none of its {} tokens counts, as all follow end-of-document tokens: "
      "look at samples {} to {} of data.train with `ziggurat data sample`, raise batch.global_batch, or set "
      "data.mask_eod_loss=false",
      step, plan.tokens, plan.first_sample, plan.first_sample + plan.samples - 1);
  return counted;
}

model::TokenBatch StepFeed::read(const SampleSource& source, const StepPlan& plan, int64_t micro_batch) {
  const Timer timer;
  const int64_t sequences = config_.batch.micro_batch;
  const int64_t first = plan.first_sample + micro_batch * sequences;
  const model::TokenBatch batch = batches_.read(source, first, sequences);
  if (micro_batch + 1 < first_of_rank(plan) + plan.micro_batches_per_rank) {
    source.prefetch(first + sequences, sequences);
  }
  seconds_ += timer.seconds();
  return batch;
}

}  // namespace ziggurat::train
