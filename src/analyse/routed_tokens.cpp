#include <algorithm>
#include <span>

#include <ziggurat/analyse/routed_tokens.h>
#include <ziggurat/train/batch_reader.h>
#include <ziggurat/train/executor.h>

namespace ziggurat::analyse {

namespace {

// Appends a layer's table of one micro-batch.
void add_routing(const ops::Routing& routing, RoutedLayer& to) {
  const int32_t* expert = routing.expert.data<int32_t>();
  const int32_t* row = routing.row_of_choice.data<int32_t>();
  const int64_t choices = routing.tokens * routing.top_k;
  to.experts = routing.experts, to.top_k = routing.top_k;
  to.expert.insert(to.expert.end(), expert, expert + choices);
  std::transform(row, row + choices, std::back_inserter(to.kept),
                 [](int32_t r) { return static_cast<uint8_t>(r >= 0); });
}

// `tape`: of its own, which asks and does not learn.
void add_predictions(Tape& tape, const model::Gpt& model, Var hidden, std::vector<int32_t>& to) {
  const int64_t vocabulary = model.config().vocab_size;
  constexpr int64_t kRows = 256;
  for (int64_t begin = 0; begin < hidden.dim(0); begin += kRows) {
    tape.begin({.training = false});
    const Tensor logits = model.logits(tape, hidden, begin, std::min(kRows, hidden.dim(0) - begin)).value();
    visit_float_dtype(logits.dtype(), [&]<class T>() {
      for (int64_t r = 0; r < logits.dim(0); ++r) {
        const T* row = logits.data<T>() + r * logits.dim(1);
        to.push_back(static_cast<int32_t>(std::max_element(row, row + vocabulary) - row));
      }
    });
  }
}

}  // namespace

train::RunConfig without_noise(train::RunConfig config) {
  config.model.dropout = {};
  config.model.moe.jitter = 0;
  config.model.moe.choice_noise = moe::ChoiceNoise::none;
  return config;
}

void add_routed(model::Gpt& model, const train::RunConfig& config, const SampleSource& source,
                int64_t sequences, int32_t source_number, RoutedTokens& to,
                const std::function<void(int64_t done)>& progress) {
  const int64_t length = config.batch.sequence_length, width = config.batch.micro_batch;
  const train::Executor::Memory any{Arena::all_memory(), Arena::all_memory(), Arena::all_memory()};
  train::Executor executor(config, Device::cpu, any, 1024), asking(config, Device::cpu, any, 1024);
  train::BatchReader batches(config);
  if (to.layers.empty()) {
    for (const moe::MoeStats* stats : model.moe_stats()) to.layers.push_back({.layer = stats->layer()});
  }
  model.observe_routing([&to](int64_t layer, const ops::Routing& routing) {
    for (RoutedLayer& one : to.layers) {
      if (one.layer == layer) add_routing(routing, one);
    }
  });
  for (int64_t first = 0; first < sequences; first += width) {
    const model::TokenBatch batch = batches.read(source, first, std::min(width, sequences - first));
    executor.tape.begin({.seed = static_cast<uint64_t>(config.seed), .index = first / width});
    const Var hidden = model.forward(executor.tape, batch);
    add_predictions(asking.tape, model, hidden, to.predicted);
    to.token.insert(to.token.end(), batch.tokens, batch.tokens + batch.size());
    to.next.insert(to.next.end(), batch.targets, batch.targets + batch.size());
    for (int64_t i = 0; i < batch.size(); ++i) to.position.push_back(static_cast<int32_t>(i % length));
    to.source.insert(to.source.end(), static_cast<size_t>(batch.size()), source_number);
    if (progress) progress(std::min(first + width, sequences));
  }
  model.observe_routing({});
}

}  // namespace ziggurat::analyse
