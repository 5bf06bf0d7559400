#include <filesystem>

#include <ziggurat/comm/program.h>
#include <ziggurat/config/config.h>
#include <ziggurat/train/start_values.h>

namespace ziggurat::train {

std::vector<NamedValue> start_values(const RunConfig& config) {
  std::vector<NamedValue> values = {this_program()};
  for_each_value(config, [&](const std::string& key, const Field& field) {
    values.emplace_back(key, value_text(field));
  });
  values.emplace_back("the output folder",
                      std::filesystem::absolute(config.output_folder()).lexically_normal());
  return values;
}

}  // namespace ziggurat::train
