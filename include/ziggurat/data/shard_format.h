// What a shard, and the manifest beside shards, say they are.
#pragma once

#include <cstdint>
#include <string_view>

namespace ziggurat {

inline constexpr std::string_view kShardFormat = "ziggurat-tokens";
inline constexpr int64_t kShardVersion = 1;
inline constexpr std::string_view kShardManifestFormat = "ziggurat-shards";
inline constexpr int64_t kShardManifestVersion = 1;

}  // namespace ziggurat
