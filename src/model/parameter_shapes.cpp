#include <ziggurat/model/gpt.h>
#include <ziggurat/model/parameter_shapes.h>

namespace ziggurat::model {

std::vector<std::pair<std::string, Shape>> parameter_shapes(const ModelConfig& config) {
  const ModelConfig alone = fit_to_ranks(config, 1);
  const ProcessGroups groups = ProcessGroups::planned(ParallelPlan(1, alone.expert_parallel_sizes()), 0);
  nn::ParamStore store({.device = meta_of(Device::cpu)});
  const Gpt model(alone, store, groups);
  std::vector<std::pair<std::string, Shape>> shapes;
  for (const nn::ParamEntry& entry : store.entries()) {
    shapes.emplace_back(entry.spec.name, entry.spec.global_shape);
  }
  return shapes;
}

}  // namespace ziggurat::model
