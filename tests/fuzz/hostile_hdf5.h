#pragma once

#include <filesystem>

namespace ziggurat::fuzz {

// Shards that were made to do harm, one a kind: sizes that no machine has, links out of the file, filters
// that nobody knows.
void write_hostile_hdf5(const std::filesystem::path& folder);

}  // namespace ziggurat::fuzz
