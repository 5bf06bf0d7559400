// What lies in a folder.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace ziggurat {

// Everything directly in it. Error (data) naming a folder that cannot be read.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder);

// All files in it and below, sorted by path; links to files are followed. Error (data) naming a link to a
// folder or to nothing, and whatever is no file, such as a socket.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder);

// Anything, also a link to nothing.
bool is_there(const std::filesystem::path& path);

// Whether `name` names a file directly in a folder: no '/' and no control character, no leading dot, 1 to 255
// bytes.
bool is_plain_name(std::string_view name);

}  // namespace ziggurat
