#include "tests/support/tiny_run.h"

#include <algorithm>
#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/data/documents.h>

namespace ziggurat::test {

namespace {
constexpr int64_t kReserve = int64_t{1} << 32;  // bytes of addresses, not of memory
}

TinyRun::TinyRun(const TinyRunOptions& options, Communicator& world)
    : options_(options),
      world_(world),
      groups_(world, ParallelPlan(world.size(),
                                  model::fit_to_ranks(options.model, world.size()).expert_parallel_sizes())),
      lanes_per_rank_(std::max<int64_t>(1, options.lanes / world.size())),
      store_({.compute = options.compute, .seed = options.seed, .reproducible = options.reproducible}),
      model_(model::fit_to_ranks(options.model, world.size()), store_, groups_, options.recompute),
      reducer_((store_.finalize(), store_), groups_, lanes_per_rank_),
      optimizer_(store_, options.optimizer),
      activations_("activations", kReserve),
      gradients_("activation gradients", kReserve),
      workspace_("workspace", kReserve),
      stream_(Device::cpu, options.reproducible),
      tape_(activations_, gradients_, workspace_, stream_) {
  const int64_t shares = world.size() * lanes_per_rank_;
  check(options.micro_batches % shares == 0, ErrorKind::argument,
        "[tiny run] {} micro-batches cannot be cut into {} lanes", options.micro_batches, shares);
}

model::TokenBatch TinyRun::begin(std::span<const int32_t> samples, int64_t micro_batch) {
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
  tape_.begin({.seed = options_.seed, .step = step_, .index = micro_batch, .count = options_.micro_batches});
  return {tokens_.data(),
          targets_.data(),
          options_.sequences,
          options_.length,
          options_.reset_positions ? positions_.data() : nullptr,
          options_.reset_attention ? first_keys_.data() : nullptr};
}

void TinyRun::reset_stats() {
  for (moe::MoeStats* stats : model_.moe_stats()) stats->reset();
}

TinyStep TinyRun::step(std::span<const int32_t> samples) {
  reset_stats();
  reducer_.begin_step();
  const double tokens = static_cast<double>(options_.samples_per_step() * options_.length);
  const int64_t mine = options_.micro_batches / world_.size();
  const int64_t per_lane = mine / lanes_per_rank_;
  // By global micro-batch: cross-entropy, auxiliary loss, dropped choices. Each is filled by one rank, so the
  // sum over ranks is exact.
  std::vector<double> parts(static_cast<size_t>(3 * options_.micro_batches), 0.0);
  for (int64_t i = 0; i < mine; ++i) {
    const int64_t micro_batch = world_.rank() * mine + i;
    double* part = &parts[static_cast<size_t>(3 * micro_batch)];
    for (const moe::MoeStats* stats : model_.moe_stats()) part[2] -= static_cast<double>(stats->dropped);
    part[0] = model_.loss(tape_, begin(samples, micro_batch), 1.0 / tokens).sum;
    tape_.backward();
    for (const moe::MoeStats* stats : model_.moe_stats()) {
      part[1] += stats->last_auxiliary_loss;
      part[2] += static_cast<double>(stats->dropped);
    }
    if ((i + 1) % per_lane == 0) reducer_.end_lane();
  }
  reducer_.reduce(stream_);
  TinyStep done{.grad_norm = std::sqrt(reducer_.squared_norm(stream_))};
  optimizer_.update(options_.optimizer.lr, done.grad_norm, stream_);
  ++step_;

  const Tensor all(parts.data(), DType::f64, {static_cast<int64_t>(parts.size())});
  world_.all_reduce(all, ReduceOp::sum, ReduceOrder::any, stream_).wait();
  for (size_t m = 0; m < parts.size(); m += 3) {
    done.cross_entropy += parts[m];
    done.auxiliary += parts[m + 1] / static_cast<double>(options_.micro_batches);
    done.dropped += static_cast<int64_t>(parts[m + 2]);
  }
  done.cross_entropy /= tokens;
  return done;
}

std::vector<double> TinyRun::logits(std::span<const int32_t> samples, int64_t micro_batch) {
  reset_stats();
  const Var hidden = model_.forward(tape_, begin(samples, micro_batch));
  const char* head = options_.model.tied_embeddings ? "embed.token.weight" : "head.weight";
  return to_doubles(ops::linear(tape_, hidden, store_.find(head).param).value());
}

}  // namespace ziggurat::test
