#include <algorithm>

#include <fmt/format.h>
#include <fnmatch.h>

#include <ziggurat/optim/clip_groups.h>

namespace ziggurat {

namespace {

bool fits(const ClipGroup& group, const std::string& parameter) {
  return fnmatch(group.parameters.c_str(), parameter.c_str(), 0) == 0;
}

}  // namespace

int clip_group_of(const OptimizerConfig& config, const std::string& parameter) {
  const auto& groups = config.clip_groups;
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [&](const ClipGroup& group) { return fits(group, parameter); });
  return found == groups.end() ? 0 : static_cast<int>(found - groups.begin()) + 1;
}

std::vector<int> clip_groups_of(const OptimizerConfig& config, const nn::ParamStore& store) {
  std::vector<int> groups;
  for (const nn::ParamEntry& entry : store.entries()) {
    groups.push_back(clip_group_of(config, entry.spec.name));
  }
  return groups;
}

const std::string& name_of_clip_group(const OptimizerConfig& config, size_t group) {
  static const std::string rest = kRestOfGradient;
  return group == 0 ? rest : config.clip_groups.at(group - 1).name;
}

double clip_norm_of(const OptimizerConfig& config, size_t group) {
  return group == 0 ? config.clip_grad : config.clip_groups.at(group - 1).norm;
}

void check_clip_groups(const OptimizerConfig& config, const std::vector<std::string>& parameters) {
  std::vector<bool> taken(config.clip_groups.size() + 1, false);
  for (const std::string& name : parameters) {
    taken[static_cast<size_t>(clip_group_of(config, name))] = true;
  }
  for (size_t i = 0; i < config.clip_groups.size(); ++i) {
    if (taken[i + 1]) continue;
    const std::string& pattern = config.clip_groups[i].parameters;
    const bool hidden = std::any_of(parameters.begin(), parameters.end(), [&](const std::string& name) {
      return fits(config.clip_groups[i], name);
    });
    fail(ErrorKind::config, "optimizer.clip_groups.{}.parameters: {} {}", i, pattern,
         hidden ? "takes only parameters that an earlier group has: put it before that"
                : fmt::format(
                      "is no parameter of the model; the first are {}. `ziggurat checkpoint inspect` "
                      "lists those of a checkpoint",
                      fmt::join(parameters.begin(),
                                parameters.begin() + std::min<ptrdiff_t>(8, std::ssize(parameters)), ", ")));
  }
}

}  // namespace ziggurat
