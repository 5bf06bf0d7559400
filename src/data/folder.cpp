
#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>

namespace ziggurat {

using Path = std::filesystem::path;

std::vector<Path> entries_of(const Path& folder) {
  std::vector<Path> entries;
  std::error_code reason;
  std::filesystem::directory_iterator it(folder, reason), end;
  for (; !reason && it != end; it.increment(reason)) entries.push_back(it->path());
  check(!reason, ErrorKind::data, "cannot read folder {}: {}; is it there, and may you read it?",
        folder.string(), reason.message());
  return entries;
}

std::vector<Path> files_below(const Path& folder) {
  std::vector<Path> files;
  for (const Path& path : entries_of(folder)) {
    std::error_code reason;
    const auto status = std::filesystem::symlink_status(path, reason);
    if (std::filesystem::is_directory(status)) {
      const std::vector<Path> below = files_below(path);
      files.insert(files.end(), below.begin(), below.end());
    } else if (std::filesystem::is_regular_file(path, reason)) {
      files.push_back(path);
    } else {
      check(!reason || reason == std::errc::no_such_file_or_directory, ErrorKind::data,
            "cannot read {}: {}; remove it or give access to it", path.string(), reason.message());
      // Left out without a word, a link's text would be missed by nobody.
      fail(ErrorKind::data, "{} {}", path.string(),
           std::filesystem::is_directory(path)
               ? "is a link to a folder, which is not followed; name it on its own"
           : reason ? "is a link to nothing; mend or remove it"
                    : "is neither a file nor a folder; remove it");
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool is_there(const Path& path) {
  std::error_code ignored;
  return std::filesystem::symlink_status(path, ignored).type() != std::filesystem::file_type::not_found;
}

bool is_plain_name(std::string_view name) {
  constexpr size_t kLongest = 255;
  const auto forbidden = [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  return !name.empty() && name.size() <= kLongest && name.front() != '.' &&
         std::ranges::none_of(name, forbidden);
}

}  // namespace ziggurat
