// Every reader of files that other people may have made.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace ziggurat::fuzz {

// Reads the files of one folder, of which one is not what it was.
struct Reader {
  std::string name;  // and of the folder below the seeds
  std::function<void(const std::filesystem::path& folder)> read;
  // Of a file that holds its own hash: makes it right again, so that what follows is read, too. May be null.
  std::function<void(const std::filesystem::path& file)> repair = {};
};

std::vector<Reader> readers();

// Writes the right hash to the end of a checkpoint's manifest; other files are left alone.
void repair_manifest(const std::filesystem::path& file);

std::string read_bytes(const std::filesystem::path& file);
void write_bytes(const std::filesystem::path& file, const std::string& bytes);

}  // namespace ziggurat::fuzz
