// A tiny model in f64 and what it takes to run an objective on it.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/objective/objective.h>

namespace ziggurat::test {

inline constexpr int64_t kBenchVocabulary = 40, kBenchSequences = 3, kBenchLength = 8,
                         kBenchTokens = kBenchSequences * kBenchLength;

inline model::ModelConfig bench_model(std::vector<model::BlockSpec> layers, int64_t hidden = 16) {
  model::ModelConfig m;
  m.vocab_size = kBenchVocabulary, m.vocab_multiple = 16, m.max_sequence = kBenchLength;
  m.hidden = hidden, m.heads = 2, m.init_std = 0.3;
  m.blocks = {{1, std::move(layers)}};
  m.moe.drop = moe::DropPolicy::none;
  return m;
}

struct BenchModel {
  explicit BenchModel(const model::ModelConfig& config, uint64_t seed = 1, bool trainable = true)
      : groups(*self, ParallelPlan(1, config.expert_parallel_sizes())),
        store({.compute = DType::f64, .seed = seed, .trainable = trainable}),
        gpt(config, store, groups) {
    store.finalize();
  }
  std::unique_ptr<Communicator> self = make_self_communicator();
  ProcessGroups groups;
  nn::ParamStore store;
  model::Gpt gpt;
};

class ObjectiveBench {
 public:
  ObjectiveBench() {
    const Philox rng(5, Purpose::test);
    for (uint64_t i = 0; i < kBenchTokens; ++i) {
      tokens_.push_back(static_cast<int32_t>(rng.bits(i) % kBenchVocabulary));
      targets_.push_back(i % 5 == 2 ? -1 : static_cast<int32_t>(rng.bits(i + 1000) % kBenchVocabulary));
    }
  }
  model::TokenBatch batch() const { return {tokens_.data(), targets_.data(), kBenchSequences, kBenchLength}; }
  double counted() const {
    return static_cast<double>(std::count_if(targets_.begin(), targets_.end(), [](int t) { return t >= 0; }));
  }
  Tape& begin(bool training = true) {
    tape_.begin({.count = 3, .token_weight = 1 / counted(), .training = training});
    return tape_;
  }
  // Of one micro-batch of a step of three.
  std::vector<double> parts(objective::Objective& objective) {
    const Tensor parts = objective.loss(begin(), batch());
    return {parts.data<double>(), parts.data<double>() + parts.numel()};
  }
  double total(objective::Objective& objective) {
    const std::vector<double> all = parts(objective);
    double sum = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const bool of_tokens = objective.parts()[i].mean == objective::Mean::over_tokens;
      sum += all[i] / (of_tokens ? counted() : 3.0);
    }
    return sum;
  }
  // The derivative of total() along a direction in the space of all weights: from gradients, and from
  // differences.
  std::pair<double, double> derivative(objective::Objective& objective, nn::ParamStore& store) {
    store.zero_gradients(stream_);
    parts(objective);
    tape_.backward();
    store.settle_gradients(stream_);
    const Philox rng(9, Purpose::test);
    constexpr double kStep = 1e-5;
    double slope = 0;
    const auto move = [&](double by) {
      uint64_t n = 0;
      for (nn::ParamEntry& entry : store.entries()) {
        auto* values = entry.param.value.data<double>();
        for (int64_t i = 0; i < entry.numel; ++i) values[i] += by * direction(rng, n++);
      }
      store.values_changed();
    };
    uint64_t n = 0;
    for (const nn::ParamEntry& entry : store.entries()) {
      const auto* gradient = entry.param.grad.data<double>();
      for (int64_t i = 0; i < entry.numel; ++i) slope += gradient[i] * direction(rng, n++);
    }
    move(kStep);
    const double above = total(objective);
    move(-2 * kStep);
    const double below = total(objective);
    move(kStep);
    return {slope, (above - below) / (2 * kStep)};
  }
  Stream& stream() { return stream_; }

 private:
  static double direction(const Philox& rng, uint64_t n) {
    return static_cast<double>(rng.bits(n) % 2001) / 1000 - 1;
  }
  std::vector<int32_t> tokens_, targets_;
  Arena activations_{"a", 1 << 28}, gradients_{"g", 1 << 28}, workspace_{"w", 1 << 28};
  Stream stream_;
  Tape tape_{activations_, gradients_, workspace_, stream_};
};

}  // namespace ziggurat::test
