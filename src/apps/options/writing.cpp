// What a trained model writes, scores and answers.
#include <limits>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

namespace {

// Which weights answer, and in what numbers; of EvalArguments and ServeArguments.
template <class Arguments>
void add_form(CLI::App& command, Arguments& arguments) {
  add_precision(command, arguments.precision);
  add_weights(command, arguments.weights);
  add_average(command, arguments.average);
}

// Which ranks, cores and device they lie on.
template <class Arguments>
void add_where(CLI::App& command, Arguments& arguments) {
  add_sharing(command, arguments.sharing);
  add_threads(command, arguments.threads, "of a rank; 0: the cores divided among the ranks");
  add_device(command, arguments.device);
}

}  // namespace

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
  add_device(*command, arguments->device);
  add_weights(*command, arguments->weights);
  command->callback([arguments] { generate(*arguments); });
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
  add_form(*command, *arguments);
  command
      ->add_option("--max-length", arguments->max_length,
                   "tokens that the model sees; default: as in training")
      ->transform(whole_number(1));
  command->add_option("--batch-tokens", arguments->batch_tokens, "tokens of a pass through the model")
      ->capture_default_str()
      ->transform(whole_number(1, 1'000'000));
  add_where(*command, *arguments);
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
  add_form(*command, *arguments);
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
  add_where(*command, *arguments);
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
  add_device(*command, arguments->device);
  command->callback([arguments] { logits(*arguments); });
}

}  // namespace ziggurat::apps
