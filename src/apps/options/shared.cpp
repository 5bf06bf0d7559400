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

void add_expert_parallel(CLI::App& command, int& ranks) {
  command
      .add_option("--expert-parallel", ranks,
                  "under mpirun: ranks that share the experts; 0: as many as the layer's experts allow")
      ->capture_default_str()
      ->transform(whole_number(0, 1 << 20));
}

void add_precision(CLI::App& command, std::string& precision) {
  command.add_option("--precision", precision, "bf16, fp32 or fp64; default: as in training")
      ->transform(one_of(std::vector<std::string>{"bf16", "fp32", "fp64"}));
}

void add_device(CLI::App& command, Device& device) {
  const auto number = [](Device d) { return std::to_string(static_cast<int>(d)); };
  command.add_option("--device", device, "cpu, or cuda: the first GPU; default: cpu")
      ->transform(one_of(std::vector<std::pair<std::string, std::string>>{{"cpu", number(Device::cpu)},
                                                                          {"cuda", number(Device::cuda)}}));
}

}  // namespace ziggurat::apps
