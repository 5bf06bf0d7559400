// ziggurat bench decode CONFIG: how near generating text comes to reading every weight once a token.
#include <algorithm>
#include <numeric>
#include <optional>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/random_model.h"
#include <ziggurat/bench/device_roof.h>
#include <ziggurat/bench/roof.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/infer/decoder.h>
#include <ziggurat/infer/sampler.h>
#include <ziggurat/kernels/int8_weights.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {

// Bytes of parameters that a step of `texts` tokens reads: of the experts as many as they can choose at most,
// of embedding tables a row each, unless the table is the vocabulary head too.
int64_t active_bytes(const nn::ParamStore& store, const model::ModelConfig& config, int64_t texts) {
  int64_t bytes = 0;
  for (const nn::ParamEntry& entry : store.entries()) {
    const Tensor& value = entry.param.value;
    const bool head = entry.spec.name == "embed.token.weight" && config.tied_embeddings;
    int64_t rows = value.dim(0);
    const int64_t in = value.dim(value.rank() - 1);
    const int64_t held = entry.param.int8 ? kernels::Int8Weights::bytes(entry.numel / in, in) : value.bytes();
    if (entry.spec.name.starts_with("embed.") && !head) rows = std::min(rows, texts);
    if (entry.spec.expert_parallel > 0) rows = std::min(rows, texts * config.moe.top_k);
    bytes += held / value.dim(0) * rows;
  }
  return bytes;
}

// FLOPs of the products in reading a token of a context: all matrices that it meets but the vocabulary head,
// which nobody asks there. Attention's are not among them.
double flops_of_context_token(const nn::ParamStore& store, const model::ModelConfig& config) {
  double weights = 0;
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    if (!spec.product || spec.name.starts_with("embed.") || spec.name.starts_with("head.")) continue;
    const double part = spec.expert_parallel > 0 ? static_cast<double>(config.moe.top_k) /
                                                       static_cast<double>(entry.param.value.dim(0))
                                                 : 1;
    weights += part * static_cast<double>(entry.numel);
  }
  return 2 * weights;
}

struct Measured {
  double seconds = 0;                 // of the fastest round
  double bandwidth = 0;               // bytes/s: the fastest reading
  double prefill_seconds = 0;         // of the fastest reading of all contexts
  double cold_seconds = 0;            // of the first one
  double context_flops = 0;           // of the products of a token of a context
  double products = 0;                // FLOP/s: the fastest matrix products of the library
  int64_t weights = 0, cache = 0;     // bytes a step reads; cache: on average over the round
  std::vector<Profile::Entry> spans;  // of the fastest round
};

// Texts that take their likeliest next tokens side by side.
class Decoding {
 public:
  Decoding(const model::Gpt& model, const BenchDecodeArguments& arguments)
      : arguments_(arguments),
        decoder_(model, arguments.texts, arguments.context + arguments.tokens, 512, Reproducible::strict),
        sampler_(decoder_.vocabulary()) {
    for (int32_t text = 0; text < arguments.texts; ++text) {
      texts_.push_back(text);
      tokens_.push_back(text);
      for (int64_t i = 0; i < arguments.context; ++i) {
        const int64_t place = text * arguments.context + i;
        contexts_.push_back(static_cast<int32_t>(place * 7919 % decoder_.vocabulary()));
        of_context_.push_back(text);
      }
    }
  }

  void read_contexts() {
    for (const int32_t text : texts_) decoder_.truncate(text, 0);
    decoder_.read(of_context_, contexts_, {}, {});
  }
  void forget_new_tokens() {
    for (const int32_t text : texts_) decoder_.truncate(text, arguments_.context);
  }
  void step() {
    const std::vector<int32_t> read = tokens_;
    decoder_.read(texts_, read, texts_, [&](size_t first, const Tensor& logits) {
      for (int64_t i = 0; i < logits.dim(0); ++i) {
        const float* row = logits.data<float>() + i * logits.dim(1);
        tokens_[first + static_cast<size_t>(i)] = sampler_(row, {.temperature = 0}, {});
      }
    });
  }
  infer::Executor& executor() { return decoder_.executor(); }

 private:
  const BenchDecodeArguments& arguments_;
  infer::Decoder decoder_;
  infer::Sampler sampler_;
  std::vector<int32_t> texts_, tokens_, contexts_, of_context_;
};

Measured measure(const train::RunConfig& config, const BenchDecodeArguments& arguments) {
  const auto self = make_self_communicator();
  const RandomModel random(config, *self, arguments.weights, arguments.device);
  Decoding decoding(random.model(), arguments);
  Measured best;
  best.weights = active_bytes(random.store(), random.layout(), arguments.texts);
  best.context_flops = flops_of_context_token(random.store(), random.layout());
  best.cache = decoding.executor().cache().bytes_per_position() * arguments.texts *
               (arguments.context + (arguments.tokens + 1) / 2);
  std::optional<bench::DeviceRoofs> gpu;
  if (arguments.device == Device::cuda) gpu = bench::measure_device_roofs();
  if (gpu) best.bandwidth = gpu->read;
  Profile profile;
  decoding.executor().set_profile(&profile);
  for (int64_t round = 0; round <= arguments.rounds; ++round) {  // the first is for warming up
    if (!gpu) best.bandwidth = std::max(best.bandwidth, bench::measure_read_roof());
    const Timer reading;
    decoding.read_contexts();
    const double read = reading.seconds();
    decoding.forget_new_tokens();
    profile.reset();
    const Timer timer;
    {
      const Span span(&profile, "decode");
      for (int64_t i = 0; i < arguments.tokens; ++i) decoding.step();
    }
    const double seconds = timer.seconds();
    if (round == 0) {
      best.cold_seconds = read;
      continue;
    }
    if (round == 1 || seconds < best.seconds) best.seconds = seconds, best.spans = profile.entries();
    if (round == 1 || read < best.prefill_seconds) best.prefill_seconds = read;
  }
  const DType dtype = train::compute_dtype(config.precision);
  best.products = gpu ? gpu->flops_per_second(dtype) : bench::measure_gemm_roof(dtype);
  return best;
}

double tokens_of_contexts(const BenchDecodeArguments& a) { return static_cast<double>(a.texts * a.context); }

// What part of the time of the products alone, at the rate of large ones, reading the contexts takes.
double prefill_of_bound(const BenchDecodeArguments& a, const Measured& m) {
  return tokens_of_contexts(a) * m.context_flops / m.products / m.prefill_seconds;
}

void print(const train::RunConfig& config, const BenchDecodeArguments& arguments, const Measured& m) {
  const auto steps = static_cast<double>(arguments.tokens), texts = static_cast<double>(arguments.texts);
  const double step = m.seconds / steps, bound = static_cast<double>(m.weights) / m.bandwidth;
  const double bound_with_cache = static_cast<double>(m.weights + m.cache) / m.bandwidth;
  const bool on_gpu = arguments.device == Device::cuda;
  fmt::print("{}: {} side by side, {}, {} tokens after {}{}\n", config.name, arguments.texts,
             on_gpu ? "one GPU" : fmt::format("{} threads", thread_count()), arguments.tokens,
             arguments.context, arguments.weights.empty() ? "" : ", weights of 8 bits");
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.3f} ms a step\n", "generating", texts / step, 1e3 * step);
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.3f} ms: {:.1f} MB of active weights at {:.1f} GB/s\n",
             "memory bound", texts / bound, 1e3 * bound, static_cast<double>(m.weights) / 1e6,
             m.bandwidth / 1e9);
  fmt::print("  {:<24}{:10.1f} %\n", "of the bound", 100 * bound / step);
  fmt::print("  {:<24}{:10.1f} %         with {:.1f} MB of keys and values\n", "of the bound",
             100 * bound_with_cache / step, static_cast<double>(m.cache) / 1e6);
  fmt::print("  {:<24}{:10.1f} tokens/s, the first time {:.1f}\n", "reading the contexts",
             tokens_of_contexts(arguments) / m.prefill_seconds,
             tokens_of_contexts(arguments) / m.cold_seconds);
  fmt::print("  {:<24}{:10.1f} %         of {:.1f} MFLOP a token at {:.1f} GFLOP/s\n", "of its products",
             100 * prefill_of_bound(arguments, m), m.context_flops / 1e6, m.products / 1e9);
  fmt::print("time a step by span{}\n", on_gpu ? ", of the host, which queues work and waits" : "");
  for (const Profile::Entry& e : m.spans) {
    if (e.seconds < 0.001 * m.seconds) break;
    fmt::print("  {:<44}{:8.3f} ms {:6.1f} %  {:>6.0f} calls\n", e.path, 1e3 * e.seconds / steps,
               100 * e.seconds / m.seconds, static_cast<double>(e.calls) / steps);
  }
}

std::string json(const train::RunConfig& config, const BenchDecodeArguments& arguments, const Measured& m) {
  const auto tokens = static_cast<double>(arguments.tokens), texts = static_cast<double>(arguments.texts);
  nlohmann::ordered_json out = {
      {"name", config.name},
      {"device", to_string(arguments.device)},
      {"threads", thread_count()},
      {"texts", arguments.texts},
      {"context", arguments.context},
      {"tokens", arguments.tokens},
      {"weights", arguments.weights.empty() ? "as precision" : arguments.weights},
      {"seconds_per_step", m.seconds / tokens},
      {"tokens_per_second", texts * tokens / m.seconds},
      {"active_weight_bytes_per_step", m.weights},
      {"cache_bytes_per_step", m.cache},
      {"read_bytes_per_second", m.bandwidth},
      {"bound_tokens_per_second", texts * m.bandwidth / static_cast<double>(m.weights)},
      {"of_bound", static_cast<double>(m.weights) / m.bandwidth * tokens / m.seconds},
      {"prefill_tokens_per_second", tokens_of_contexts(arguments) / m.prefill_seconds},
      {"cold_prefill_tokens_per_second", tokens_of_contexts(arguments) / m.cold_seconds},
      {"prefill_of_bound", prefill_of_bound(arguments, m)}};
  for (const Profile::Entry& e : m.spans) {
    out["spans"].push_back({{"path", e.path}, {"seconds", e.seconds}, {"calls", e.calls}});
  }
  return out.dump(2);
}

}  // namespace

void bench_decode(const BenchDecodeArguments& asked) {
  train::RunConfig config;
  load_config(config, asked.config.path, asked.config.overrides);
  BenchDecodeArguments arguments = asked;
  if (config.device == Device::cuda) arguments.device = Device::cuda;
  if (arguments.device == Device::cuda) check_gpu(look_for_gpus(), 0);
  use_threads(arguments.threads, "--threads");
  check(arguments.context + arguments.tokens <= config.model.max_sequence, ErrorKind::argument,
        "--context {} and --tokens {} are more than the model's max_sequence {}: take fewer of them",
        arguments.context, arguments.tokens, config.model.max_sequence);
  const Measured m = measure(config, arguments);
  if (arguments.json) {
    fmt::print("{}\n", json(config, arguments, m));
  } else {
    print(config, arguments, m);
  }
}

}  // namespace ziggurat::apps
