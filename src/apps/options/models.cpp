// Models and checkpoints from one form to another.
#include <memory>

#include "apps/checkpoint.h"
#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

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

}  // namespace ziggurat::apps
