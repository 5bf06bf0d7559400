#pragma once

#include <cstdint>

namespace ziggurat::train {

// Of the keys of a config. A key that is new, with a default that leaves runs as they were, does not raise
// it; one that is renamed, removed, or means something else does.
inline constexpr int64_t kConfigVersion = 1;

}  // namespace ziggurat::train
