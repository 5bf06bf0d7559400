#include "tests/support/tiny_run.h"

#include <algorithm>

#include "tests/support/op_test.h"
#include <ziggurat/data/documents.h>

namespace ziggurat::test {

namespace {

constexpr int64_t kReserve = int64_t{1} << 32;  // bytes of addresses, not of memory

train::RunConfig config_of(const TinyRunOptions& options) {
  train::RunConfig config;
  config.seed = static_cast<int64_t>(options.seed);
  config.precision = options.compute == DType::bf16  ? train::Precision::bf16
                     : options.compute == DType::f32 ? train::Precision::fp32
                                                     : train::Precision::fp64;
  config.reproducible = options.reproducible;
  config.model = options.model;
  config.optimizer = options.optimizer;
  config.objective = options.objective;
  config.train.recompute = options.recompute;
  config.batch.sequence_length = options.length;
  config.batch.micro_batch = options.sequences;
  config.batch.global_batch = options.samples_per_step();
  config.batch.lanes = options.lanes;
  return config;
}

}  // namespace

TinyRun::TinyRun(const TinyRunOptions& options, Communicator& world)
    : options_(options),
      config_(config_of(options)),
      training_(config_, world),
      executor_(config_, Device::cpu, {kReserve, kReserve, kReserve},
                train::TrainStep::bytes_of_numbers(config_, *training_.objective)),
      step_(config_, training_, executor_) {}

model::TokenBatch TinyRun::batch(std::span<const int32_t> samples, int64_t micro_batch) {
  const int64_t width = options_.length + 1;
  check(static_cast<int64_t>(samples.size()) == options_.samples_per_step() * width, ErrorKind::argument,
        "[tiny run] {} tokens, expected {} samples of {}", samples.size(), options_.samples_per_step(),
        width);
  tokens_.clear(), targets_.clear();
  for (int64_t s = 0; s < options_.sequences; ++s) {
    const int32_t* sample = samples.data() + (micro_batch * options_.sequences + s) * width;
    tokens_.insert(tokens_.end(), sample, sample + options_.length);
    targets_.insert(targets_.end(), sample + 1, sample + width);
  }
  positions_.resize(tokens_.size()), first_keys_.resize(tokens_.size());
  locate_documents(tokens_.data(), options_.sequences, options_.length, options_.eod, positions_.data(),
                   first_keys_.data());
  last_keys_.clear();
  for (const int32_t prefix : options_.prefixes) {
    for (int32_t i = 0; i < options_.length; ++i) last_keys_.push_back(std::max(i, prefix - 1));
  }
  return {tokens_.data(),
          targets_.data(),
          options_.sequences,
          options_.length,
          options_.reset_positions ? positions_.data() : nullptr,
          options_.reset_attention ? first_keys_.data() : nullptr,
          last_keys_.empty() ? nullptr : last_keys_.data()};
}

std::vector<moe::MoeSums> TinyRun::moe_sums() {
  std::vector<moe::MoeSums> sums;
  for (const moe::MoeStats* stats : moe_stats()) sums.push_back(stats->read(executor_.stream));
  return sums;
}

TinyStep TinyRun::step(std::span<const int32_t> samples) {
  train::StepPlan plan = train::plan_step(config_, training_.groups.dp().size(), training_.cursor.samples);
  plan.lr = options_.optimizer.lr;
  const train::StepResult result =
      step_.run(plan, static_cast<double>(plan.tokens),
                [&](int64_t micro_batch) { return batch(samples, micro_batch); });
  double dropped = 0;
  for (const moe::MoeSums& sums : moe_sums()) dropped += static_cast<double>(sums.dropped);
  training_.groups.world()
      .all_reduce(Tensor(&dropped, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, executor_.stream)
      .wait();
  return {result.loss, result.auxiliary_loss(), result.grad_norm, static_cast<int64_t>(dropped)};
}

std::vector<double> TinyRun::logits(std::span<const int32_t> samples, int64_t micro_batch) {
  for (moe::MoeStats* stats : moe_stats()) stats->reset(executor_.stream);
  const model::TokenBatch tokens = batch(samples, micro_batch);
  Tape& tape = executor_.tape;
  tape.begin({.seed = options_.seed,
              .step = training_.cursor.step,
              .index = micro_batch,
              .count = options_.micro_batches,
              .token_weight = 1.0 / static_cast<double>(tokens.size())});
  const Var hidden = training_.model.forward(tape, tokens);
  const char* head = options_.model.tied_embeddings ? "embed.token.weight" : "head.weight";
  return to_doubles(ops::linear(tape, hidden, training_.store.find(head).param).value());
}

}  // namespace ziggurat::test
