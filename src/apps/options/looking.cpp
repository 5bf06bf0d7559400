// Looking at runs, at models and at the machine.
#include <memory>

#include "apps/commands.h"
#include "apps/doctor.h"
#include "apps/option_table.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

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

}  // namespace ziggurat::apps
