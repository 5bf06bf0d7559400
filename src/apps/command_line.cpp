#include "apps/command_line.h"

#include <cstdio>
#include <limits>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/checkpoint.h"
#include "apps/commands.h"
#include "apps/doctor.h"
#include "apps/option_table.h"
#include <ziggurat/config/option_values.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/exit_codes.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

namespace {

CLI::App* add_config_command(CLI::App& parent, const char* name, const char* help,
                             ConfigArguments& arguments) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->add_option("config", arguments.path, "YAML file")->required()->transform(not_empty());
  command->add_option("overrides", arguments.overrides, "key=value, e.g. optimizer.lr=1e-4");
  return command;
}

void add_threads(CLI::App& command, int& threads, const char* help) {
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int>::max());
  command.add_option("--threads", threads, help)->transform(whole_number(0, kMost));
}

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<ConfigArguments>();
  add_config_command(app, "train", "Train a model; start it by mpirun or srun for several ranks", *arguments)
      ->callback([arguments] {
        if (const int code = train(*arguments); code != exit_codes::done) throw CLI::RuntimeError(code);
      });
}

void add_plan(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command = add_config_command(
      app, "plan", "Parameters, FLOPs, steps and memory of a run, without running it", arguments->config);
  command
      ->add_option(
          "--ranks", arguments->ranks,
          "ranks to plan for; default: the largest expert-parallel size, with --simulate all of the cluster")
      ->transform(whole_number(1, 1 << 24));
  CLI::Option* cluster =
      command
          ->add_option(
              "--simulate", arguments->cluster,
              "the time of a step on this cluster, a YAML file (configs/clusters), instead of the plan")
          ->transform(not_empty());
  command
      ->add_flag("--search", arguments->search, "with --simulate: the fastest layouts that its memory holds")
      ->needs(cluster);
  CLI::Option* serve =
      command
          ->add_option("--serve", arguments->serving_cluster,
                       "the time of a token of the finished model on this cluster, term by term, instead")
          ->transform(not_empty())
          ->excludes(cluster);
  command
      ->add_option("--parallel", arguments->parallel,
                   "with --serve: how ranks share the model, as of `ziggurat serve`")
      ->transform(not_empty())
      ->needs(serve);
  command->add_option("--texts", arguments->texts, "with --serve: written at once, for each rank")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 20))
      ->needs(serve);
  command->add_option("--context", arguments->context, "with --serve: tokens that each text has already")
      ->capture_default_str()
      ->transform(whole_number(0, 1 << 30))
      ->needs(serve);
  command->add_flag("--json", arguments->json, "machine-readable");
  command->callback([arguments] {
    if (!arguments->serving_cluster.empty()) return plan_serve(*arguments);
    arguments->cluster.empty() ? plan(*arguments) : simulate(*arguments);
  });
}

void add_config(CLI::App& app) {
  CLI::App* config = app.add_subcommand("config", "Inspect config files");
  config->require_subcommand(1);
  auto arguments = std::make_shared<ConfigArguments>();
  auto changed_only = std::make_shared<bool>(false);
  CLI::App* dump = add_config_command(*config, "dump", "Print every value that a run would use", *arguments);
  dump->add_flag("--changed", *changed_only, "only values that differ from the defaults");
  dump->callback([arguments, changed_only] { config_dump(*arguments, *changed_only); });
  add_config_command(*config, "check", "Report every mistake of a config file", *arguments)
      ->callback([arguments] { config_check(*arguments); });
  config->add_subcommand("schema", "Print a JSON schema for editors")->callback(config_schema);
  auto ranks = std::make_shared<int>(0);
  CLI::App* explain = add_config_command(
      *config, "explain", "Print where every value of a run comes from, and what follows from them",
      *arguments);
  explain
      ->add_option("--ranks", *ranks,
                   "ranks for which figures are derived; default: the largest expert-parallel size")
      ->transform(whole_number(1, 1 << 24));
  explain->callback([arguments, ranks] { config_explain(*arguments, *ranks); });
  auto key = std::make_shared<std::string>();
  CLI::App* help = config->add_subcommand(
      "help", "Print every key with its unit, default and meaning, or all that is known of one");
  help->add_option("key", *key, "e.g. optimizer.lr; default: all keys, one a line");
  help->callback([key] { config_help(*key); });
}

void add_average(CLI::App& command, bool& average) {
  command.add_flag("--average", average, "the averages of the weights (optimizer.average) instead of them");
}

void add_sharing(CLI::App& command, SharingArguments& sharing) {
  command
      .add_option(
          "--parallel", sharing.parallel,
          "under mpirun, how ranks share the model, as tensor=2,expert=4,expert_slice=2: ranks that "
          "share all matrices but experts', that share a layer's experts, that share each expert's "
          "matrices; ranks_per_node, all_to_all as of a run. Default: whole matrices, and experts over "
          "as many ranks as can be")
      ->transform(not_empty());
  command.add_option("--expert-parallel", sharing.expert_parallel, "the same as --parallel expert=")
      ->capture_default_str()
      ->transform(whole_number(0, 1 << 20));
  command
      .add_option(
          "--watch-timeout", sharing.watch_timeout,
          "under mpirun: seconds without progress after which the job ends with code 76 and the name of "
          "the missing rank; 0: a minute, or five usual steps")
      ->capture_default_str()
      ->transform(real_number(0, 1e9));
}

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command =
      app.add_subcommand("generate", "Continue texts with a trained model; by mpirun on several ranks");
  command
      ->add_option("--checkpoint", arguments->checkpoint,
                   "step folder, or the folder above, or the run's: then the newest")
      ->required()
      ->transform(not_empty());
  command->add_option("--prompt", arguments->prompts, "text to continue; several: side by side");
  command->add_option("--file", arguments->files, "a file whose text is a prompt; -: standard input; several")
      ->transform(not_empty());
  command->add_option("--samples", arguments->samples, "texts from each prompt")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 20));
  command->add_option("--tokenizer", arguments->tokenizer, "default: the one the model was trained with")
      ->transform(not_empty());
  command->add_option("--tokens", arguments->max_new_tokens, "at most this many new tokens")
      ->capture_default_str()
      ->transform(whole_number(0));
  command->add_option("--temperature", arguments->sampling.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->transform(real_number(0, 1e6));
  command->add_option("--top-k", arguments->sampling.top_k, "sample among the likeliest; 0: all")
      ->capture_default_str()
      ->transform(whole_number(0));
  command
      ->add_option("--top-p", arguments->sampling.top_p,
                   "and of those among the likeliest with this share of the probability")
      ->capture_default_str()
      ->transform(real_number(0, 1, /*above_least=*/true));
  command
      ->add_option("--repetition-penalty", arguments->sampling.repetition_penalty,
                   "above 1: tokens that the text has already become less likely (CTRL)")
      ->capture_default_str()
      ->transform(real_number(0, 100, /*above_least=*/true));
  command->add_option("--seed", arguments->sampling.seed, "another seed, another text")
      ->capture_default_str()
      ->transform(whole_number(0, std::numeric_limits<uint64_t>::max()));
  command->add_option("--stop", arguments->stops, "the new text ends before this one; several")
      ->transform(not_empty());
  command->add_flag("--json", arguments->json, "a line of JSON for each text, in the order of the prompts");
  add_sharing(*command, arguments->sharing);
  add_threads(*command, arguments->threads, "of a rank; 0: the cores divided among the ranks");
  add_average(*command, arguments->average);
  command->callback([arguments] { generate(*arguments); });
}

void add_precision(CLI::App& command, std::string& precision) {
  command.add_option("--precision", precision, "bf16, fp32 or fp64; default: as in training")
      ->transform(one_of(std::vector<std::string>{"bf16", "fp32", "fp64"}));
}

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand(
      "eval", "Zero-shot tasks as lm-evaluation-harness has them; by mpirun on several ranks");
  command->add_option("--checkpoint", arguments->checkpoint,
                      "step folder, or the folder above: then the newest");
  command
      ->add_option("--tasks", arguments->tasks,
                   fmt::format("{}, or task files (.jsonl)", fmt::join(eval::known_tasks(), ",")))
      ->required()
      ->delimiter(',');
  command->add_option("--data", arguments->data,
                      "folder of the public sets: <data>/lambada/..., <data>/piqa/...");
  command
      ->add_option("--form", arguments->form,
                   "v0: lm-eval 0.2.0, as DeepSpeed-MoE was evaluated; current: today's lm-eval (default)")
      ->transform(one_of(std::vector<std::pair<std::string, std::string>>{{"v0", "0"}, {"current", "1"}}));
  command->add_option("--limit", arguments->limit, "the first documents of each task only")
      ->transform(whole_number(1));
  command->add_option("--output", arguments->output, "results as JSON, in lm-eval's form");
  command->add_option("--scores", arguments->scores, "log-likelihood of every continuation as JSONL");
  command->add_option("--dump-requests", arguments->dump_requests, "write every request as JSONL");
  command->add_flag("--request-hash", arguments->request_hash,
                    "print lm-eval's hash of each task's requests");
  command->add_flag("--any-size", arguments->any_size,
                    "take sets with another number of rows than the public ones");
  command->add_option("--tokenizer", arguments->tokenizer, "default: the one the model was trained with");
  add_precision(*command, arguments->precision);
  add_average(*command, arguments->average);
  command
      ->add_option("--max-length", arguments->max_length,
                   "tokens that the model sees; default: as in training")
      ->transform(whole_number(1));
  command->add_option("--batch-tokens", arguments->batch_tokens, "tokens of a pass through the model")
      ->capture_default_str()
      ->transform(whole_number(1, 1'000'000));
  add_sharing(*command, arguments->sharing);
  add_threads(*command, arguments->threads, "of a rank; 0: the cores divided among the ranks");
  command->callback([arguments] { eval(*arguments); });
}

void add_serve(CLI::App& app) {
  auto arguments = std::make_shared<ServeArguments>();
  CLI::App* command = app.add_subcommand(
      "serve", "Answer OpenAI's /v1/completions over HTTP; by mpirun with the model on several ranks");
  command
      ->add_option("--checkpoint", arguments->checkpoint, "step folder, or the folder above: then the newest")
      ->required();
  command->add_option("--host", arguments->host, "address to listen on; 0.0.0.0: anybody may ask")
      ->capture_default_str();
  command->add_option("--port", arguments->port, "0: any that is free")
      ->capture_default_str()
      ->transform(whole_number(0, 65535));
  command->add_option("--name", arguments->name, "of the model, in answers; default: the run's");
  command->add_option("--tokenizer", arguments->tokenizer, "default: the one the model was trained with");
  add_precision(*command, arguments->precision);
  add_average(*command, arguments->average);
  command
      ->add_option("--max-length", arguments->max_length,
                   "tokens of a prompt and its completion; default: as in training")
      ->transform(whole_number(1));
  command->add_option("--texts", arguments->texts, "written at once; more wait")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 20));
  command->add_option(
      "--cache", arguments->cache,
      "memory for keys and values, as 2GB; default: for all --texts, at most a quarter of the "
      "machine's");
  command
      ->add_option("--requests", arguments->most_requests,
                   "under way or waiting; more are told to come again (429)")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 20));
  command->add_option("--time-limit", arguments->time_limit, "seconds of a request; 0: none")
      ->capture_default_str()
      ->transform(real_number(0, 1e9));
  command->add_option("--log", arguments->log, "append a line of JSON about each completion to this file")
      ->transform(not_empty());
  add_sharing(*command, arguments->sharing);
  add_threads(*command, arguments->threads, "of a rank; 0: the cores divided among the ranks");
  command->callback([arguments] { serve(*arguments); });
}

void add_logits(CLI::App& app) {
  auto arguments = std::make_shared<LogitsArguments>();
  CLI::App* command = app.add_subcommand(
      "logits", "Write a model's logits at every token of a text, to compare it with another program's");
  command
      ->add_option("--checkpoint", arguments->checkpoint, "step folder, or the folder above: then the newest")
      ->required();
  command->add_option("--tokens", arguments->tokens, "token ids, as 5,17,3")->delimiter(',')->required();
  command
      ->add_option("--output", arguments->output,
                   "a new .safetensors file: tokens [n] i32, logits [n, vocabulary] f32")
      ->required();
  add_average(*command, arguments->average);
  command->callback([arguments] { logits(*arguments); });
}

void add_export(CLI::App& app) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command = app.add_subcommand(
      "export",
      "Write a trained model as a folder that Hugging Face transformers loads; mpirun shares the work");
  command
      ->add_option("--checkpoint", arguments->checkpoint, "step folder, or the folder above: then the newest")
      ->required();
  command->add_option("--format", arguments->format, "hf: safetensors, config.json, tokenizer, README.md")
      ->capture_default_str()
      ->transform(one_of(std::vector<std::string>{"hf"}));
  command->add_option("--output", arguments->output, "a new folder")->required();
  command->add_option("--dtype", arguments->dtype, "of the weights; default: what the run computed in")
      ->transform(one_of(std::vector<std::string>{"bf16", "fp32"}));
  command->add_option("--shard-size", arguments->shard_size, "of a file of weights at most")
      ->capture_default_str();
  command->add_option("--tokenizer", arguments->tokenizer, "default: the one the model was trained with");
  add_average(*command, arguments->average);
  command->add_flag("--no-tokenizer", arguments->no_tokenizer, "leave it out");
  command->add_flag("--overwrite", arguments->overwrite, "replace an earlier export");
  command->callback([arguments] { export_model(*arguments); });
}

void add_import(CLI::App& app) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command = app.add_subcommand(
      "import",
      "Make a folder of Hugging Face transformers the start of a run: config.yaml and a checkpoint; mpirun "
      "shares the work");
  command->add_option("--from", arguments->from, "folder with config.json and safetensors")->required();
  command->add_option("--output", arguments->output, "a new folder, that of the run")->required();
  command->add_option("--config", arguments->overrides, "key=value ... of the run, e.g. data.train=data");
  command
      ->add_option("--upcycle", arguments->upcycle,
                   "give a dense model experts: experts=8,every=2[,top_k=2][,residual=true]")
      ->check([](const std::string& text) {  // an unset variable of a script must not mean: without
        return std::string(text.empty() ? "expected experts=N, got ''" : "");
      });
  command->add_option("--shard-size", arguments->shard_size, "of a file of the checkpoint at most")
      ->capture_default_str();
  command->callback([arguments] { import_model(*arguments); });
}

void add_checkpoint(CLI::App& app) {
  CLI::App* checkpoint = app.add_subcommand("checkpoint", "Look at checkpoints, check and convert them");
  checkpoint->require_subcommand(1);
  constexpr const char* kHelp = "step folder, or the folder above, or the run's: then the newest";
  const auto add = [&](const char* name, const char* help, const char* argument, std::string& path,
                       const char* path_help) {
    CLI::App* command = checkpoint->add_subcommand(name, help);
    command->add_option(argument, path, path_help)->required()->transform(not_empty());
    return command;
  };
  struct Arguments {
    ConvertArguments first;
    std::string second;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  std::string& path = arguments->first.checkpoint;
  CLI::App* inspect = add("inspect", "Print step, state, files, tensors and config of a checkpoint",
                          "checkpoint", path, kHelp);
  inspect->callback([arguments] { checkpoint_inspect(arguments->first.checkpoint, arguments->json); });
  add("verify", "Check every byte of a checkpoint against its hashes", "checkpoint", path,
      "step folder, or the folder above, or the run's: then all in it")
      ->callback([arguments] { checkpoint_verify(arguments->first.checkpoint); });
  CLI::App* diff =
      add("diff", "Print which tensors and keys of two checkpoints differ", "first", path, kHelp);
  diff->add_option("second", arguments->second, kHelp)->required()->transform(not_empty());
  diff->callback(
      [arguments] { checkpoint_diff(arguments->first.checkpoint, arguments->second, arguments->json); });
  for (CLI::App* command : {inspect, diff}) command->add_flag("--json", arguments->json, "machine-readable");
  CLI::App* convert =
      add("convert", "Write a checkpoint anew, in the current format", "checkpoint", path, kHelp);
  convert->add_option("--output", arguments->first.output, "a folder that gets the step's folder")
      ->required()
      ->transform(not_empty());
  convert
      ->add_option("--moments", arguments->first.moments,
                   "dtype of the optimizer's moments; default: as they are")
      ->transform(one_of(std::vector<std::string>{"bf16", "fp32"}));
  convert->add_flag("--weights-only", arguments->first.weights_only,
                    "moments become zeros, which take no room");
  convert->callback([arguments] { checkpoint_convert(arguments->first); });
}

void add_device(CLI::App& command, Device& device) {
  const auto number = [](Device d) { return std::to_string(static_cast<int>(d)); };
  command.add_option("--device", device, "cpu, or cuda: the first GPU; default: cpu")
      ->transform(one_of(std::vector<std::pair<std::string, std::string>>{{"cpu", number(Device::cpu)},
                                                                          {"cuda", number(Device::cuda)}}));
}

void add_bench_kernels(CLI::App& bench) {
  auto arguments = std::make_shared<BenchKernelsArguments>();
  CLI::App* command =
      bench.add_subcommand("kernels", "Every kernel beside its floor: FLOPs or bytes at the measured roofs");
  command->add_option("--filter", arguments->filter, "regular expression, found in NAME/DTYPE; default: all");
  add_device(*command, arguments->device);
  add_threads(*command, arguments->threads, "0: every core");
  command->add_flag("--json", arguments->json, "machine-readable");
  command->callback([arguments] { bench_kernels(*arguments); });
}

void add_bench_decode(CLI::App& bench) {
  auto arguments = std::make_shared<BenchDecodeArguments>();
  CLI::App* command = add_config_command(
      bench, "decode", "Tokens/s of text generation beside the time to read the weights, and time by span",
      arguments->config);
  const auto number = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str()->transform(whole_number(1, 1 << 24));
  };
  number("--context", arguments->context, "tokens read before the first measured one");
  number("--tokens", arguments->tokens, "tokens of a round");
  number("--rounds", arguments->rounds, "the fastest counts");
  number("--texts", arguments->texts, "written side by side");
  add_threads(*command, arguments->threads, "0: every core");
  command->add_flag("--json", arguments->json, "machine-readable");
  command->callback([arguments] { bench_decode(*arguments); });
}

void add_bench_serve(CLI::App& bench) {
  auto arguments = std::make_shared<BenchServeArguments>();
  CLI::App* command = add_config_command(
      bench, "serve",
      "Many requests at once: time to the first token and of each, tokens/s; by mpirun on several ranks",
      arguments->config);
  const auto number = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str()->transform(whole_number(1, 1 << 24));
  };
  number("--clients", arguments->clients, "who each ask again when they have their answer");
  command
      ->add_option("--rate", arguments->rate,
                   "requests a second at random times, instead of clients; 0: clients")
      ->capture_default_str()
      ->transform(real_number(0, 1e6));
  number("--requests", arguments->requests, "in all");
  number("--prompt", arguments->prompt, "tokens of a prompt on average; half of it to half more");
  number("--tokens", arguments->tokens, "tokens of an answer, likewise");
  number("--texts", arguments->texts, "of a rank, written at once; more wait");
  command->add_option("--most-first", arguments->most_first, "seconds to the first token of a good request")
      ->capture_default_str()
      ->transform(real_number(0, 1e6, true));
  command->add_option("--most-token", arguments->most_token, "and of each later token, on average")
      ->capture_default_str()
      ->transform(real_number(0, 1e6, true));
  add_threads(*command, arguments->threads, "of a rank; 0: the cores divided among the ranks");
  command->add_flag("--json", arguments->json, "machine-readable");
  command->callback([arguments] { bench_serve(*arguments); });
}

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* bench =
      app.add_subcommand("bench", "Measure this machine, and training and generating against its limits");
  bench->require_subcommand(1);
  CLI::App* roof = bench->add_subcommand("roof", "Matrix products and memory: what this machine can do");
  add_device(*roof, arguments->device);
  roof->callback([arguments] { bench_roof(*arguments); });
  CLI::App* step = add_config_command(
      *bench, "step", "Tokens/s of training steps beside their matrix products alone, and time by span",
      arguments->config);
  step->add_option("--steps", arguments->steps, "steps to measure; the fastest counts")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 24));
  step->callback([arguments] { bench_step(*arguments); });
  CLI::App* comm = bench->add_subcommand("comm", "Collectives between the ranks that mpirun started");
  comm->add_option("--ranks-per-node", arguments->ranks_per_node,
                   "consecutive ranks taken for a node; 0: those that share a machine's memory")
      ->capture_default_str()
      ->transform(whole_number(0, 1 << 24));
  comm->callback([arguments] { bench_comm(*arguments); });
  for (CLI::App* command : {roof, step, comm}) {
    add_threads(*command, arguments->threads, "of a rank; 0: the cores divided among the ranks");
    command->add_flag("--json", arguments->json, "machine-readable");
  }
  add_bench_kernels(*bench);
  add_bench_decode(*bench);
  add_bench_serve(*bench);
}

void add_verify(CLI::App& app) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command = add_config_command(
      app, "verify",
      "Train the first steps twice, by default on two devices, and name the first tensor that differs",
      arguments->config);
  command->add_option("--against", arguments->against, "key=value of the second run")
      ->capture_default_str()
      ->transform(not_empty());
  command->add_option("--steps", arguments->steps, "at most: the first that differs ends it")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 24));
  command
      ->add_option("--tolerance", arguments->tolerance,
                   "largest difference of a tensor, relative to its L2 norm; default: by precision")
      ->transform(real_number(0, 1, true));
  command->callback([arguments] { verify(*arguments); });
}

void add_replay(CLI::App& app) {
  auto arguments = std::make_shared<ReplayArguments>();
  CLI::App* command = app.add_subcommand("replay",
                                         "Compute past steps of a run again from a checkpoint before them, "
                                         "to the bit, and compare the losses with "
                                         "metrics.jsonl; mpirun with as many ranks as then");
  command
      ->add_option("--checkpoint", arguments->checkpoint,
                   "step folder, or the folder above: then the newest before --step")
      ->required()
      ->transform(not_empty());
  command->add_option("--step", arguments->step, "the last one to compute")
      ->required()
      ->transform(whole_number(1, INT64_MAX));
  command
      ->add_option("--dump", arguments->dump,
                   "which tensors to write after it: NAME, adam.m.NAME, adam.v.NAME, gradient.NAME or "
                   "output.blocks.L.M of micro-batch M; * and ? stand for any text and letter")
      ->transform(not_empty());
  command->add_option("--output", arguments->output, "folder for them, rank_N.safetensors of each rank")
      ->transform(not_empty());
  command->callback([arguments] { replay(*arguments); });
}

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  CLI::App* command =
      app.add_subcommand("report", "One page of HTML about runs: curves, experts, samples, configs compared");
  command->add_option("runs", arguments->runs, "folders of runs")->required()->transform(not_empty());
  command->add_option("--output", arguments->output, "the file; it needs no network and no other files")
      ->capture_default_str()
      ->transform(not_empty());
  command->callback([arguments] { report(*arguments); });
}

void add_analyse(CLI::App& app) {
  auto arguments = std::make_shared<AnalyseArguments>();
  CLI::App* group = app.add_subcommand("analyse", "What a trained model does inside")->require_subcommand(1);
  CLI::App* command = group->add_subcommand(
      "routing", "Which tokens go to which experts, which are dropped, and when that was learnt");
  command
      ->add_option("--checkpoint", arguments->checkpoints,
                   "step folders, or runs (their newest); of several the last step is described, the others "
                   "are compared with it")
      ->required()
      ->transform(not_empty());
  command->add_option("--data", arguments->data, "token shards, one or more texts; or synthetic")
      ->required()
      ->transform(not_empty());
  command->add_option("--tokenizer", arguments->tokenizer, "default: the one the model was trained with")
      ->transform(not_empty());
  add_average(*command, arguments->average);
  command->add_option("--sequences", arguments->sequences, "of each text")
      ->capture_default_str()
      ->transform(whole_number(1, 1 << 30));
  command->add_option("--least", arguments->least, "leave out token ids and positions with fewer tokens")
      ->capture_default_str()
      ->transform(whole_number(1));
  command->add_option("--output", arguments->output, "folder for routing.json and routing.html")
      ->capture_default_str()
      ->transform(not_empty());
  command->callback([arguments] { analyse_routing(*arguments); });
}

void add_top(CLI::App& app) {
  auto run = std::make_shared<std::string>();
  auto every = std::make_shared<double>(2);
  CLI::App* command =
      app.add_subcommand("top", "Watch a run: progress, loss, speed and experts, until it ends");
  command->add_option("run", *run, "folder of the run")->required()->transform(not_empty());
  command->add_option("--every", *every, "seconds between two looks")
      ->capture_default_str()
      ->transform(real_number(0.1, 3600));
  command->callback([run, every] { top(*run, *every); });
}

void add_doctor(CLI::App& app) {
  auto folder = std::make_shared<std::string>(".");
  CLI::App* command = app.add_subcommand(
      "doctor",
      "What of this machine stops or slows Ziggurat, and what to change; under mpirun on every rank");
  command->add_option("--folder", *folder, "where runs will write: its file system is tried")
      ->capture_default_str()
      ->transform(not_empty());
  command->callback([folder] { doctor(*folder); });
}

void add_pages(CLI::App& app) {
  auto folder = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("pages", "Write manual pages, and completion for bash and zsh");
  command->group("");  // hidden
  command
      ->add_option("--output", *folder, "folder like /usr/share, of which man, bash-completion and zsh know")
      ->required()
      ->transform(not_empty());
  command->callback([&app, folder] { write_pages(app, *folder); });
}

}  // namespace

void use_threads(int asked, const char* option, int local_ranks) {
  const std::string slow = choose_thread_count(asked, option, local_ranks);
  if (!slow.empty()) fmt::print(stderr, "ziggurat: {}\n", slow);
}

void use_device(Device device, MpiRuntime& mpi) {
  if (device != Device::cuda) return;
  check_gpu(look_for_gpus(), mpi.local_rank());
  backend(device).choose(mpi.local_rank());
  const std::string why_not = mpi.world().use_devices();
  if (!why_not.empty() && mpi.world().rank() == 0) {
    warn("collectives go through the host's memory: {}", why_not);
  }
}

int node_of(int ranks_per_node, const MpiRuntime& mpi, const Communicator& world) {
  return ranks_per_node > 0 ? world.rank() / ranks_per_node : mpi.node();
}

void use_nodes(int ranks_per_node, AllToAll all_to_all, const MpiRuntime& mpi, Communicator& world) {
  world.use_nodes({.node = node_of(ranks_per_node, mpi, world), .all_to_all = all_to_all});
  if (world.nodes() > 1) {
    info("{} nodes of {} ranks", world.nodes(), world.size() / world.nodes());
  } else if (all_to_all == AllToAll::hierarchical && world.rank() == 0) {
    warn(
        "parallel.all_to_all = hierarchical: has no effect, as the {} ranks do not lie on several nodes of "
        "several ranks, equally many on each. Cure: remove it, start others, or set parallel.ranks_per_node",
        world.size());
  }
}

int64_t parse_shard_size(const std::string& text) {
  const int64_t bytes = parse_bytes(text);
  check(bytes >= 1000, ErrorKind::argument, "--shard-size: expected at least 1KB, got {}", text);
  return bytes;
}

void add_commands(CLI::App& app) {
  add_train(app);
  add_plan(app);
  add_config(app);
  add_generate(app);
  add_eval(app);
  add_serve(app);
  add_logits(app);
  add_export(app);
  add_import(app);
  add_checkpoint(app);
  add_verify(app);
  add_replay(app);
  add_bench(app);
  add_report(app);
  add_analyse(app);
  add_top(app);
  add_doctor(app);
  add_pages(app);
}

}  // namespace ziggurat::apps
