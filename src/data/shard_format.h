// What a shard says it is.
#pragma once

#include <cstdint>
#include <string_view>

namespace ziggurat {

inline constexpr std::string_view kShardFormat = "ziggurat-tokens";
inline constexpr int64_t kShardVersion = 1;

}  // namespace ziggurat
