// A checkpoint written anew: in the current format, smaller, or without what only training needs.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat::train {

struct Conversion {
  std::optional<DType> moments = {};  // bf16 or f32; none: as they are
  bool weights_only = false;          // moments become zeros, which no file holds
};

// Writes <folder>/step_N, of the same run, step and state as `from`. Throws Error(argument) where there is
// one.
void convert_checkpoint(CheckpointReader& from, const std::string& folder, const Conversion& conversion,
                        const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace ziggurat::train
