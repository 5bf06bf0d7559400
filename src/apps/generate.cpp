// ziggurat generate --checkpoint DIR --prompt TEXT
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/infer/generate.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

void generate(const GenerateArguments& arguments) {
  CheckpointReader reader(arguments.checkpoint);
  train::RunConfig config;
  parse_config(config, reader.manifest().config, reader.path());
  config.model = model::fit_to_ranks(config.model, 1);  // all experts in this process
  const std::string path = arguments.tokenizer.empty() ? config.data.tokenizer : arguments.tokenizer;
  check(!path.empty(), ErrorKind::argument, "{} names no tokenizer: give one with --tokenizer",
        reader.path());
  const auto tokenizer = load_tokenizer(path);

  set_thread_count(arguments.threads > 0 ? arguments.threads : available_cores());
  const auto self = make_self_communicator();
  const ProcessGroups groups(*self, ParallelPlan(1, config.model.expert_parallel_sizes()));
  nn::ParamStore store({.compute = train::compute_dtype(config.precision), .trainable = false});
  const model::Gpt model(config.model, store, groups);
  store.finalize();
  for (const nn::ParamEntry& entry : store.entries()) {
    reader.read(
        {entry.spec.name, entry.spec.global_shape, 0, entry.spec.global_shape[0], store.master(entry)});
  }
  store.refresh_compute_copies();

  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& prompt : arguments.prompts) {
    std::vector<int32_t> tokens = tokenizer->encode(prompt);
    if (tokens.empty()) tokens.push_back(tokenizer->eod_id());
    prompts.insert(prompts.end(), static_cast<size_t>(arguments.samples), tokens);
  }
  infer::SamplingOptions options = arguments.sampling;
  options.stop_token = tokenizer->eod_id();
  infer::Decoder decoder(model, static_cast<int64_t>(prompts.size()), config.batch.sequence_length);
  const bool one_text = prompts.size() == 1;
  const auto show = [&](const std::vector<int32_t>& tokens) {
    std::fputs(tokenizer->decode(tokens).c_str(), stdout);
    std::fflush(stdout);
  };

  if (one_text) std::fputs(arguments.prompts[0].c_str(), stdout);
  const Timer timer;
  const auto texts = infer::generate(decoder, prompts, options, [&](size_t, int32_t token) {
    if (one_text) show({token});
  });
  const double seconds = timer.seconds();
  size_t tokens = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    tokens += texts[i].size();
    if (one_text) break;
    fmt::print("--- {}\n{}", i + 1, arguments.prompts[i / static_cast<size_t>(arguments.samples)]);
    show(texts[i]);
    std::fputs("\n", stdout);
  }
  if (one_text) std::fputs("\n", stdout);
  std::fflush(stdout);
  fmt::print(stderr, "{} tokens in {:.2f} s, the prompts included: {:.1f} tokens/s\n", tokens, seconds,
             static_cast<double>(tokens) / seconds);
}

}  // namespace ziggurat::apps
