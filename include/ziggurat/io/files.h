// Whole files and folders that are either there, or as they were before; what counts as written outlives a
// power cut: temporary name, fsync, rename, fsync of the folder. Every failure is an Error of the kind that
// the caller names, with path, errno and cure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include <ziggurat/core/error.h>

namespace ziggurat {

class OutputFile;

// Writes a sibling "<file>.tmp", syncs it and renames it to `file`. When it throws, nothing is left behind.
void replace_file(const std::filesystem::path& file, const std::function<void(OutputFile&)>& write,
                  ErrorKind kind = ErrorKind::data);
void replace_file(const std::filesystem::path& file, std::string_view text, ErrorKind kind = ErrorKind::data);
// Throws Error(kind) where `file` is a folder, or a device, pipe or socket, which a new file must not
// replace.
void check_replaceable(const std::filesystem::path& file, ErrorKind kind = ErrorKind::data);
// Neither atomic nor synced. A file that cannot be written whole is removed.
void write_file(const std::filesystem::path& file, std::string_view bytes, ErrorKind kind = ErrorKind::data);

// Syncs `from` to the disk, gives it its final name and syncs the folder.
void commit_file(const std::filesystem::path& from, const std::filesystem::path& to,
                 ErrorKind kind = ErrorKind::data);
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to,
                 ErrorKind kind = ErrorKind::data);  // replaces a file, not synced
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to,
                    ErrorKind kind = ErrorKind::data);  // syncs the folder
// Puts `from` in the place of the existing folder `to` in one step where the file system can, so that a kill
// never leaves neither. Afterwards the old contents stand at `from`.
void exchange_folders(const std::filesystem::path& from, const std::filesystem::path& to, ErrorKind kind);

void sync_file(const std::filesystem::path& file, ErrorKind kind = ErrorKind::data);
void sync_folder(const std::filesystem::path& folder, ErrorKind kind = ErrorKind::data);
// Makes it and its parents, each on the disk when this returns: or a power cut loses what was saved inside.
void make_folder(const std::filesystem::path& folder, ErrorKind kind = ErrorKind::data);

// What is not there counts as removed.
void remove_file(const std::filesystem::path& file, ErrorKind kind = ErrorKind::data);
void remove_folder(const std::filesystem::path& folder, ErrorKind kind = ErrorKind::data);

std::string read_file(const std::filesystem::path& file, ErrorKind kind = ErrorKind::data);  // pipes, too

// Bytes that a user may still write on the disk that holds this folder; -1: not known.
int64_t free_bytes(const std::filesystem::path& folder);

// "cannot write PATH: No space left on device (errno 28); make room, ..."
[[noreturn]] void fail_errno(ErrorKind kind, std::string_view what, const std::filesystem::path& path,
                             int error_number);
// The system's words for an error number, and the cure: it is not there, may not be read, lies on a file
// system that fails, ...
std::string reason_of(int error_number);

}  // namespace ziggurat
