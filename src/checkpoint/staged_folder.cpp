#include <filesystem>

#include <sys/statvfs.h>

#include "posix_file.h"
#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>

namespace ziggurat {

namespace fs = std::filesystem;

StagedFolder::StagedFolder(const std::string& path) {
  fs::path place = fs::path(path).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // a trailing '/'
  final_ = place.string();
  temporary_ = (place.parent_path() / ("." + place.filename().string() + ".tmp")).string();
}

void StagedFolder::create() {
  make_directory(fs::path(final_).parent_path().string());
  remove_tree(temporary_);
  make_directory(temporary_);
}

void StagedFolder::check_room(int64_t bytes) const {
  struct statvfs status {};
  if (::statvfs(temporary_.c_str(), &status) != 0) return;  // writing will tell
  const double free = static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize);
  check(static_cast<double>(bytes) <= free, ErrorKind::checkpoint,
        "{} would take {} and its disk has {} left: make room, or choose a folder on another disk", final_,
        format_bytes(static_cast<double>(bytes)), format_bytes(free));
}

void StagedFolder::write(const std::string& name, std::string_view text) const {
  OutputFile file(temporary_ + "/" + name);
  file.write(as_bytes(text));
  file.finish();
}

void StagedFolder::publish() {
  const std::string parent = fs::path(final_).parent_path().string();
  sync_directory(temporary_);
  if (fs::exists(final_)) {
    exchange_paths(temporary_, final_);
  } else {
    rename_path(temporary_, final_);
  }
  sync_directory(parent.empty() ? "." : parent);
  try {
    remove_tree(temporary_);  // what stood there before
  } catch (const Error& e) {
    warn("{} is complete, but what it replaces could not be removed: {}", final_, e.what());
  }
}

void StagedFolder::discard() noexcept {
  std::error_code ignored;  // the first error is the one to report; the next run removes what is left
  fs::remove_all(temporary_, ignored);
}

}  // namespace ziggurat
