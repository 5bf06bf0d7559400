// The limits of this machine, and how near everything comes.
#include <memory>

#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

namespace {

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
  add_weights(*command, arguments->weights);
  add_device(*command, arguments->device);
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
  add_weights(*command, arguments->weights);
  add_device(*command, arguments->device);
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

}  // namespace

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

}  // namespace ziggurat::apps
