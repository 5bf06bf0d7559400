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

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);  // replaces, not synced
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);  // syncs the folder
void sync_file(const std::filesystem::path& file);
void sync_folder(const std::filesystem::path& folder);
// What is not there counts as removed.
void remove_file(const std::filesystem::path& file);
void remove_folder(const std::filesystem::path& folder);

std::string read_file(const std::filesystem::path& file);
// XXH3, 128 bits, as 32 hexadecimal digits.
std::string xxh3_of_file(const std::filesystem::path& file);
std::string xxh3_of_bytes(std::string_view bytes);

// Why a file could not be opened or read, and the cure, in words that fit the system's error number: it is
// not there, may not be read, lies on a file system that fails, ...
std::string reason_of(int error_number);

}  // namespace ziggurat
