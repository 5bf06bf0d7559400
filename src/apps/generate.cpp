// ziggurat generate --checkpoint DIR --prompt TEXT
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/infer/generate.h>
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

  constexpr int64_t kReserve = int64_t{1} << 36;
  Arena activations("activations", kReserve), gradients("gradients", 1), workspace("workspace", kReserve);
  Stream stream;
  Tape tape(activations, gradients, workspace, stream);
  std::vector<int32_t> prompt = tokenizer->encode(arguments.prompt);
  if (prompt.empty()) prompt.push_back(tokenizer->eod_id());
  infer::SamplingOptions options = arguments.sampling;
  options.stop_token = tokenizer->eod_id();
  std::fputs(arguments.prompt.c_str(), stdout);
  infer::generate(model, tape, prompt, config.batch.sequence_length, options, [&](int32_t token) {
    std::fputs(tokenizer->decode(std::vector<int32_t>{token}).c_str(), stdout);
    std::fflush(stdout);
  });
  std::fputs("\n", stdout);
}

}  // namespace ziggurat::apps
