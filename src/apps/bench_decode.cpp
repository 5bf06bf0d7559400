// ziggurat bench decode CONFIG: how near generating text comes to reading every weight once a token.
#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include <ziggurat/bench/roof.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/infer/decoder.h>
#include <ziggurat/infer/sampler.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {

// Bytes of parameters that one token reads: of the experts top_k, of embedding tables one row, unless the
// table is the vocabulary head too.
int64_t active_bytes(const nn::ParamStore& store, const model::ModelConfig& config) {
  int64_t bytes = 0;
  for (const nn::ParamEntry& entry : store.entries()) {
    const Tensor& value = entry.param.value;
    const bool head = entry.spec.name == "embed.token.weight" && config.tied_embeddings;
    int64_t rows = value.dim(0);
    if (entry.spec.name.starts_with("embed.") && !head) rows = 1;
    if (entry.spec.expert_parallel > 0) rows = std::min(rows, config.moe.top_k);
    bytes += value.bytes() / value.dim(0) * rows;
  }
  return bytes;
}

struct Measured {
  double seconds = 0;                 // of the fastest round
  double bandwidth = 0;               // bytes/s: the fastest reading
  double prefill_seconds = 0;         // of the context, once
  int64_t weights = 0, cache = 0;     // bytes a token reads; cache: on average over the round
  std::vector<Profile::Entry> spans;  // of the fastest round
};

// The likeliest next tokens, `count` of them.
void decode(infer::Decoder& decoder, infer::Sampler& sampler, int32_t token, int64_t count) {
  const int32_t sequence = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t read = token;
    decoder.read({&sequence, 1}, {&read, 1}, {&sequence, 1}, [&](size_t, const Tensor& logits) {
      token = sampler(logits.data<float>(), {.temperature = 0}, {.position = decoder.length(0)});
    });
  }
}

Measured measure(const train::RunConfig& config, const BenchDecodeArguments& arguments) {
  const model::ModelConfig layout = model::fit_to_ranks(config.model, 1);
  const auto self = make_self_communicator();
  const ProcessGroups groups(*self, ParallelPlan(1, layout.expert_parallel_sizes()));
  nn::ParamStore store({.compute = train::compute_dtype(config.precision), .trainable = false});
  const model::Gpt model(layout, store, groups);
  store.finalize();

  infer::Decoder decoder(model, 1, arguments.context + arguments.tokens);
  infer::Sampler greedy(decoder.vocabulary());
  std::vector<int32_t> prompt(static_cast<size_t>(arguments.context));
  for (size_t i = 0; i < prompt.size(); ++i) {
    prompt[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(decoder.vocabulary()));
  }
  Measured best;
  const Timer prefill;
  decoder.read(std::vector<int32_t>(prompt.size(), 0), prompt, {}, {});
  best.prefill_seconds = prefill.seconds();
  best.weights = active_bytes(store, layout);
  best.cache = decoder.executor().cache().bytes_per_position() * (arguments.context + (arguments.tokens + 1) / 2);

  Profile profile;
  decoder.executor().set_profile(&profile);
  for (int64_t round = 0; round <= arguments.rounds; ++round) {  // the first is for warming up
    best.bandwidth = std::max(best.bandwidth, bench::measure_read_roof());
    decoder.truncate(0, arguments.context);
    profile.reset();
    const Timer timer;
    {
      const Span span(&profile, "decode");
      decode(decoder, greedy, prompt[0], arguments.tokens);
    }
    const double seconds = timer.seconds();
    if (round == 0) continue;
    if (round == 1 || seconds < best.seconds) best.seconds = seconds, best.spans = profile.entries();
  }
  return best;
}

void print(const train::RunConfig& config, const BenchDecodeArguments& arguments, const Measured& m) {
  const auto tokens = static_cast<double>(arguments.tokens);
  const double rate = tokens / m.seconds, bound = m.bandwidth / static_cast<double>(m.weights);
  const double bound_with_cache = m.bandwidth / static_cast<double>(m.weights + m.cache);
  fmt::print("{}: one text, {} threads, {} tokens after {}\n", config.name, thread_count(), arguments.tokens,
             arguments.context);
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.3f} ms a token\n", "generating", rate, 1e3 / rate);
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.3f} ms: {:.1f} MB of active weights at {:.1f} GB/s\n",
             "memory bound", bound, 1e3 / bound, static_cast<double>(m.weights) / 1e6, m.bandwidth / 1e9);
  fmt::print("  {:<24}{:10.1f} %\n", "of the bound", 100 * rate / bound);
  fmt::print("  {:<24}{:10.1f} %         with {:.1f} MB of keys and values\n", "of the bound",
             100 * rate / bound_with_cache, static_cast<double>(m.cache) / 1e6);
  fmt::print("  {:<24}{:10.1f} tokens/s\n", "reading the context",
             static_cast<double>(arguments.context) / m.prefill_seconds);
  fmt::print("time a token by span\n");
  for (const Profile::Entry& e : m.spans) {
    if (e.seconds < 0.001 * m.seconds) break;
    fmt::print("  {:<44}{:8.3f} ms {:6.1f} %  {:>6.0f} calls\n", e.path, 1e3 * e.seconds / tokens,
               100 * e.seconds / m.seconds, static_cast<double>(e.calls) / tokens);
  }
}

std::string json(const train::RunConfig& config, const BenchDecodeArguments& arguments, const Measured& m) {
  const auto tokens = static_cast<double>(arguments.tokens);
  nlohmann::ordered_json out = {
      {"name", config.name},
      {"threads", thread_count()},
      {"context", arguments.context},
      {"tokens", arguments.tokens},
      {"seconds_per_token", m.seconds / tokens},
      {"tokens_per_second", tokens / m.seconds},
      {"active_weight_bytes_per_token", m.weights},
      {"cache_bytes_per_token", m.cache},
      {"read_bytes_per_second", m.bandwidth},
      {"bound_tokens_per_second", m.bandwidth / static_cast<double>(m.weights)},
      {"of_bound", static_cast<double>(m.weights) / m.bandwidth * tokens / m.seconds},
      {"prefill_tokens_per_second", static_cast<double>(arguments.context) / m.prefill_seconds}};
  for (const Profile::Entry& e : m.spans) {
    out["spans"].push_back({{"path", e.path}, {"seconds", e.seconds}, {"calls", e.calls}});
  }
  return out.dump(2);
}

}  // namespace

void bench_decode(const BenchDecodeArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  use_threads(arguments.threads, "--threads");
  const Measured m = measure(config, arguments);
  if (arguments.json) {
    fmt::print("{}\n", json(config, arguments, m));
  } else {
    print(config, arguments, m);
  }
}

}  // namespace ziggurat::apps
