// Files that are either there and whole, or as they were before.
#pragma once

#include <string>
#include <string_view>

#include <ziggurat/core/error.h>

namespace ziggurat {

// Writes a sibling "<path>.tmp", syncs it and renames it to `path`. Throws an Error of this kind naming path
// and errno; then nothing is left behind.
void replace_file(const std::string& path, std::string_view text, ErrorKind kind);

// What was renamed in the folder, or made there, outlives a power cut.
void sync_folder(const std::string& path) noexcept;

}  // namespace ziggurat
