// What --parallel and its like ask for.
#pragma once

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include <ziggurat/model/inference_layout.h>

namespace ziggurat::apps {

model::InferenceLayout layout_of(const SharingArguments& sharing);  // throws Error(config)
RankOptions ranks_of(const SharingArguments& sharing, int threads, Device device);

}  // namespace ziggurat::apps
