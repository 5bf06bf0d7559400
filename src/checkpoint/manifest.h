// The manifest as text, the names inside a checkpoint directory, and what a slice must be.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat {

inline constexpr const char* kManifestName = "manifest.json";
// A leading dot and this ending mark what no reader looks at and anybody may remove.
inline constexpr std::string_view kTemporaryEnding = ".tmp";

// Throws Error(checkpoint) when data, box and global shape contradict each other.
void check_slice(const TensorSlice& slice);

std::string step_name(int64_t step);                           // "step_00001200"
std::optional<int64_t> step_of_name(const std::string& name);  // nullopt: not such a name
// Renames a step directory to the first free of <name>.aside_1, 2, ..., which no reader takes for a
// checkpoint. Returns the new path.
std::string set_aside(const std::string& step_directory);
std::string temporary_path(const std::string& dir, int64_t step);  // "<dir>/.step_00001200.tmp"

// A record of one rank's file, to be gathered on the rank that writes the manifest.
std::string to_text(const FileRecord& record);
FileRecord file_record_from_text(const std::string& text, const std::string& where);

// A JSON object whose last member is the content_hash of all bytes before it: a flipped bit in the manifest
// itself is found as well.
std::string to_text(const Manifest& manifest);

// Throws Error(checkpoint) naming the file: damaged, other format version, or impossible values.
Manifest read_manifest(const std::string& step_directory);

}  // namespace ziggurat
