#include <filesystem>

#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {

namespace fs = std::filesystem;

StagedFolder::StagedFolder(const std::string& path) {
  fs::path place = fs::path(path).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // a trailing '/'
  const std::string name = place.filename().string();
  check(!name.empty() && name != "." && name != "..", ErrorKind::argument,
        "expected the name of a new folder, got '{}'", path);
  std::error_code unreadable;               // then create() says why
  if (fs::is_symlink(place, unreadable)) {  // the folder it leads to is meant, not the link
    check(fs::exists(place, unreadable), ErrorKind::argument,
          "{} is a link to what is not there: make that folder, or take the link away", path);
    place = fs::canonical(place);
  }
  final_ = place.string();
  temporary_ = (place.parent_path() / ("." + place.filename().string() + ".tmp")).string();
}

void StagedFolder::create() {
  const fs::path place(final_);
  const std::string parent = place.parent_path().string();
  make_folder(parent, ErrorKind::checkpoint);
  lock_.emplace(parent.empty() ? "." : parent, "." + place.filename().string() + ".lock", LockTimes{},
                ErrorKind::checkpoint);
  remove_folder(temporary_, ErrorKind::checkpoint);
  make_folder(temporary_, ErrorKind::checkpoint);
}

void StagedFolder::check_room(int64_t bytes) const {
  const int64_t free = free_bytes(temporary_);
  if (free < 0) return;  // writing will tell
  check(bytes <= free, ErrorKind::checkpoint,
        "{} would take {} and its disk has {} left: make room, or choose a folder on another disk", final_,
        format_bytes(static_cast<double>(bytes)), format_bytes(static_cast<double>(free)));
}

void StagedFolder::write(const std::string& name, std::string_view text) const {
  OutputFile file(temporary_ + "/" + name, ErrorKind::checkpoint);
  file.write(text);
  file.finish();
}

void StagedFolder::publish() {
  const std::string parent = fs::path(final_).parent_path().string();
  check(lock_ && lock_->state() != LockState::taken, ErrorKind::checkpoint,
        "{} was taken over by another job, which held this one for dead: {}. Let it end, then start this one "
        "again with another folder",
        final_, lock_ ? lock_->owner().text() : "");
  sync_folder(temporary_, ErrorKind::checkpoint);
  if (fs::exists(final_)) {
    exchange_folders(temporary_, final_, ErrorKind::checkpoint);
  } else {
    rename_path(temporary_, final_, ErrorKind::checkpoint);
  }
  sync_folder(parent, ErrorKind::checkpoint);
  try {
    remove_folder(temporary_, ErrorKind::checkpoint);  // what stood there before
  } catch (const Error& e) {
    warn("{} is complete, but what it replaces could not be removed: {}", final_, e.what());
  }
  lock_.reset();
}

void StagedFolder::discard() noexcept {
  if (!lock_) return;       // what lies there may be another job's
  std::error_code ignored;  // the first error is the one to report; the next run removes what is left
  if (lock_->state() != LockState::taken) fs::remove_all(temporary_, ignored);
  lock_.reset();
}

}  // namespace ziggurat
