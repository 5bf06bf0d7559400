#include <algorithm>
#include <filesystem>
#include <utility>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/utc.h>
#include <ziggurat/io/files.h>
#include <ziggurat/train/run_folder.h>

namespace ziggurat::train {

namespace fs = std::filesystem;

namespace {

bool belongs_to_a_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  if (name == "checkpoints") {
    std::error_code error;
    return !fs::is_directory(entry, error) || !fs::is_empty(entry, error);
  }
  return name == "metrics.jsonl" || name.starts_with("events.out.tfevents.") || name == "config.yaml" ||
         name == "tokenizer" || name == "flight" ||
         (name.starts_with("rank_") && entry.extension() == ".log");
}

}  // namespace

RunFolder::RunFolder(const std::string& path, Communicator& world) : path_(path), world_(world) {
  on_rank_0(world_, [&] {
    try {
      make();
      take_lock();
      check(!fs::exists(stop_file()), ErrorKind::config,
            "output: {} is there, by which somebody ended this run: remove it to train on", stop_file());
    } catch (...) {
      for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) ::rmdir(folder->c_str());
      throw;
    }
    return std::string();
  });
}

bool RunFolder::stop_asked() const { return world_.rank() == 0 && fs::exists(stop_file()); }

RunFolder::~RunFolder() {
  lock_.reset();
  if (start_) return;
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) ::rmdir(folder->c_str());
}

void RunFolder::make() {
  made_.clear();
  std::error_code error;
  for (fs::path p = path_; !p.empty() && !fs::exists(fs::symlink_status(p, error)); p = p.parent_path()) {
    made_.insert(made_.begin(), p.string());
    if (error && error != std::errc::no_such_file_or_directory) break;
  }
  fs::create_directories(path_, error);
  if (!error && !fs::is_directory(path_, error)) error = std::make_error_code(std::errc::not_a_directory);
  check(!error, ErrorKind::config,
        "output: cannot make the folder {}: {} (errno {}); choose another output, or make this one possible",
        path_, error.message(), error.value());
}

void RunFolder::take_lock() {
  try {
    lock_.emplace(path_);
  } catch (const Error& e) {
    fail(e.kind(), "output: {}", e.what());
  }
}

void RunFolder::begin(const Start& start) {
  start_ = start;
  const auto take_possession = [&] {
    remove_stale_temporaries(checkpoints());
    if (start.resumed_from.empty()) set_aside_earlier_run();
    std::error_code error;
    fs::create_directories(checkpoints(), error);
    check(!error, ErrorKind::config, "output: cannot make the folder {}: {} (errno {})", checkpoints(),
          error.message(), error.value());
    for (const std::string& path : set_aside_later(checkpoints(), start.step)) {
      warn("a later step than the run goes on from is kept as {}", path);
    }
    cut_metrics(path_ + "/metrics.jsonl", start.step);
    open_metrics(start.step);
    write_config();
    return std::string();
  };
  on_rank_0(world_, take_possession, ErrorKind::config);
}

// And says after which step its records go on.
void RunFolder::open_metrics(int64_t step) {
  records_ = RunRecords(path_, step);
  nlohmann::ordered_json marker = {{"kind", "start"},         {"step", step},
                                   {"resumed_from", nullptr}, {"time", utc_now()},
                                   {"ranks", world_.size()},  {"lineage", start_->lineage}};
  if (!start_->resumed_from.empty()) marker["resumed_from"] = start_->resumed_from;
  records_.write(marker.dump());
}

// Checkpoints first: an interruption never leaves them to a run that has its metrics elsewhere.
void RunFolder::set_aside_earlier_run() const {
  std::vector<fs::path> found;
  int64_t next = 1;
  for (const auto& entry : fs::directory_iterator(path_)) {
    if (belongs_to_a_run(entry.path())) found.push_back(entry.path());
  }
  if (found.empty()) return;
  std::sort(found.begin(), found.end());
  const auto folder = [&] { return fmt::format("{}/earlier_{}", path_, next); };
  while (fs::exists(fs::symlink_status(folder()))) ++next;
  std::error_code error;
  fs::create_directory(folder(), error);
  for (const fs::path& path : found) {
    const fs::path kept = fs::path(folder()) / path.filename();
    if (!error && fs::is_symlink(path)) {  // a relative one would lead elsewhere from there
      const fs::path target = fs::canonical(path, error);
      if (!error) fs::create_symlink(target, kept, error);
      if (!error) fs::remove(path, error);
    } else if (!error) {
      fs::rename(path, kept, error);
    }
  }
  check(!error, ErrorKind::config,
        "output: an earlier run's files cannot be set aside in {}: {} (errno {}); choose another output",
        folder(), error.message(), error.value());
  sync_folder(folder());
  sync_folder(path_);
  info("{} holds an earlier run: its checkpoints, metrics and logs are kept in {}", path_, folder());
}

void RunFolder::write_config() const {
  replace_file(path_ + "/config.yaml", start_->config, ErrorKind::config);
}

bool RunFolder::ended_at(int64_t step) const {
  return !on_rank_0(world_, [&] { return says_ended(path_ + "/metrics.jsonl", step) ? "yes" : ""; }).empty();
}

bool RunFolder::keep(int64_t step) {
  if (world_.rank() != 0 || !start_) return false;
  const LockState state = lock_ ? lock_->state() : LockState::gone;
  check(state != LockState::taken, ErrorKind::config,
        "output: {} was taken by another job: {}. This one stops, so that they do not mix; choose another "
        "output",
        path_, lock_ ? lock_->owner().text() : "");
  const std::string metrics = path_ + "/metrics.jsonl";
  if (state == LockState::held && fs::exists(metrics)) return false;
  const bool removed = !fs::exists(path_);
  try {
    if (state == LockState::gone) {
      lock_.reset();
      make();
      take_lock();
      write_config();
    }
    open_metrics(step);
  } catch (const Error& e) {
    if (!lock_ && fs::exists(path_ + "/run.lock")) throw;  // another job was faster
    if (!std::exchange(warned_, true)) warn("{} cannot be made again: {}; training goes on", path_, e.what());
    return false;  // the next step tries again
  }
  warn("{} was removed or moved away while training: made again; {}training goes on",
       state == LockState::held ? metrics
       : removed                ? path_
                                : lock_->path(),
       removed ? "checkpoints and metrics so far are not in it, " : "");
  return state == LockState::gone;
}

}  // namespace ziggurat::train
