// Files that are either there and whole, or not there: written under a temporary name, synced, renamed.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace ziggurat {

// Errors (data) name the file and the system's reason.
void write_file_atomically(const std::filesystem::path& file, std::string_view text);
// Neither atomic nor synced. A file that cannot be written whole is removed.
void write_file(const std::filesystem::path& file, std::string_view bytes);
// Syncs `from` to the disk, gives it its final name and syncs the folder.
void commit_file(const std::filesystem::path& from, const std::filesystem::path& to);
std::string read_file(const std::filesystem::path& file);
// XXH3, 128 bits, as 32 hexadecimal digits.
std::string xxh3_of_file(const std::filesystem::path& file);
std::string xxh3_of_bytes(std::string_view bytes);

}  // namespace ziggurat
