// Training, and what looks at it before and after: plan, verify, replay.
#include <memory>

#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>
#include <ziggurat/core/exit_codes.h>

namespace ziggurat::apps {

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
  command->add_flag("--json", arguments->json, "machine-readable");
  command->callback([arguments] { arguments->cluster.empty() ? plan(*arguments) : simulate(*arguments); });
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

}  // namespace ziggurat::apps
