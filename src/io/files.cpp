#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io/system_calls.h"
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {

namespace fs = std::filesystem;

namespace {

void sync_path(const fs::path& path, int flags, ErrorKind kind) {
  Descriptor file;
  if (const int error = system_calls::open(path, flags, file)) fail_errno(kind, "open", path, error);
  if (const int error = system_calls::sync(file.get(), path)) fail_errno(kind, "fsync", path, error);
}

}  // namespace

void check_replaceable(const fs::path& file, ErrorKind kind) {
  std::error_code unknown;  // then writing says why
  const fs::file_status status = fs::status(file, unknown);
  check(!is_directory(status), kind, "{} is a folder: name a file in it", file.string());
  check(!exists(status) || is_regular_file(status), kind,
        "{} is no file but a device, pipe or socket, which would be replaced: name a file", file.string());
}

void replace_file(const fs::path& file, std::string_view text, ErrorKind kind) {
  replace_file(
      file, [&](OutputFile& out) { out.write(text); }, kind);
}

void replace_file(const fs::path& file, const std::function<void(OutputFile&)>& write, ErrorKind kind) {
  check_replaceable(file, kind);
  fs::path temporary = file;
  temporary += ".tmp";
  try {
    OutputFile out(temporary, kind, OutputFile::Place::replaced);
    write(out);
    out.finish();
    rename_path(temporary, file, kind);
  } catch (...) {
    system_calls::remove_file(temporary);
    throw;
  }
  sync_folder(file.parent_path(), kind);
}

void write_file(const fs::path& file, std::string_view bytes, ErrorKind kind) {
  try {
    OutputFile(file, kind, OutputFile::Place::replaced).write(bytes);
  } catch (...) {
    system_calls::remove_file(file);
    throw;
  }
}

void commit_file(const fs::path& from, const fs::path& to, ErrorKind kind) {
  sync_file(from, kind);
  rename_durably(from, to, kind);
}

void rename_path(const fs::path& from, const fs::path& to, ErrorKind kind) {
  if (const int error = system_calls::rename(from, to)) {
    fail_errno(kind, fmt::format("rename {} to", from.string()), to, error);
  }
}

void rename_durably(const fs::path& from, const fs::path& to, ErrorKind kind) {
  rename_path(from, to, kind);
  sync_folder(to.parent_path(), kind);
}

void exchange_folders(const fs::path& from, const fs::path& to, ErrorKind kind) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_errno(kind, "exchange with", to, errno);
  fs::path aside = from;
  aside += ".aside.tmp";
  rename_path(to, aside, kind);
  rename_path(from, to, kind);
  rename_path(aside, from, kind);
}

void sync_file(const fs::path& file, ErrorKind kind) { sync_path(file, O_RDWR, kind); }

void sync_folder(const fs::path& folder, ErrorKind kind) {
  sync_path(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY, kind);
}

void make_folder(const fs::path& folder, ErrorKind kind) {
  std::error_code unknown;  // then making it says why
  if (folder.empty() || fs::is_directory(folder, unknown)) return;
  const fs::path parent = folder.parent_path();
  if (parent != folder) make_folder(parent, kind);
  const int error = system_calls::make_folder(folder);
  const bool there = error == EEXIST && fs::is_directory(folder, unknown);  // another rank was faster
  if (error != 0 && !there) fail_errno(kind, "make the folder", folder, error);
  sync_folder(parent, kind);
}

void remove_file(const fs::path& file, ErrorKind kind) {
  if (const int error = system_calls::remove_file(file)) fail_errno(kind, "remove", file, error);
}

void remove_folder(const fs::path& folder, ErrorKind kind) {
  if (const int error = system_calls::remove_tree(folder))
    fail_errno(kind, "remove the folder", folder, error);
}

std::string read_file(const fs::path& path, ErrorKind kind) {
  Descriptor file;
  if (const int error = system_calls::open(path, O_RDONLY, file)) fail_errno(kind, "open", path, error);
  std::string text, block(size_t{1} << 16, '\0');
  for (;;) {
    const ssize_t n = ::read(file.get(), block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(kind, "read", path, errno);
    if (n == 0) return text;
    text.append(block, 0, static_cast<size_t>(n));
  }
}

int64_t free_bytes(const fs::path& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) return -1;
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

}  // namespace ziggurat
