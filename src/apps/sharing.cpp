#include "apps/sharing.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include <ziggurat/config/config.h>

namespace ziggurat::apps {

model::InferenceLayout layout_of(const SharingArguments& sharing) {
  std::vector<std::string> keys;
  std::istringstream text(sharing.parallel);
  for (std::string key; std::getline(text, key, ',');) keys.push_back(key);
  if (sharing.expert_parallel > 0) keys.push_back(fmt::format("expert={}", sharing.expert_parallel));
  model::InferenceLayout layout;
  parse_config(layout, "", "--parallel", keys);
  return layout;
}

RankOptions ranks_of(const SharingArguments& sharing, int threads, Device device) {
  return {.threads = threads,
          .device = device,
          .ranks_per_node = layout_of(sharing).ranks_per_node,
          .watch = {.enabled = true, .timeout = sharing.watch_timeout}};
}

}  // namespace ziggurat::apps
