#include "apps/options/shared.h"

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

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

void add_average(CLI::App& command, bool& average) {
  command.add_flag("--average", average, "the averages of the weights (optimizer.average) instead of them");
}

void add_weights(CLI::App& command, std::string& weights) {
  command
      .add_option(
          "--weights", weights,
          "int8: the nearest numbers of 8 bits and a scale for each row, half of bf16's memory to read")
      ->transform(one_of(std::vector<std::string>{"int8"}));
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

void add_precision(CLI::App& command, std::string& precision) {
  command.add_option("--precision", precision, "bf16, fp32 or fp64; default: as in training")
      ->transform(one_of(std::vector<std::string>{"bf16", "fp32", "fp64"}));
}

void add_device(CLI::App& command, Device& device) {
  const auto number = [](Device d) { return std::to_string(static_cast<int>(d)); };
  command
      .add_option("--device", device, "cpu, or cuda: the first GPU, of several ranks one each; default: cpu")
      ->transform(one_of(std::vector<std::pair<std::string, std::string>>{{"cpu", number(Device::cpu)},
                                                                          {"cuda", number(Device::cuda)}}));
}

}  // namespace ziggurat::apps
