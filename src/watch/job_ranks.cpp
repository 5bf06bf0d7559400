#include "watch/job_ranks.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/syscall.h>
#include <unistd.h>

#include <ziggurat/io/system_facts.h>

namespace ziggurat::watch {

namespace {

// Ready to read when the process ends; -1: it is over already, or the kernel is older than Linux 5.3, where
// who wants to know looks at /proc now and then.
pollfd end_of(int64_t pid) {
  const auto file = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
  return {.fd = file, .events = POLLIN, .revents = 0};
}

// Processes that see each other under the same numbers: one kernel, one name space.
std::string kernel() {
  std::array<char, 64> space{};
  if (::readlink("/proc/self/ns/pid", space.data(), space.size() - 1) < 0) space[0] = '\0';
  return first_line("/proc/sys/kernel/random/boot_id") + space.data();
}

std::string address(int node) {
  const nlohmann::json json = {{"pid", ::getpid()},
                               {"log", flight_log_descriptor()},
                               {"host", host_name()},
                               {"kernel", kernel()},
                               {"node", node}};
  return json.dump();
}

constexpr char kOver = 'Z';  // it has ended

// The letter of /proc/<pid>/stat, behind the name in brackets.
char state_of(int64_t pid) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", pid));
  const size_t name_end = line.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= line.size() ? kOver : line[name_end + 2];
}

bool is_stopped(int64_t pid) {
  const char state = state_of(pid);
  return state == 'T' || state == 't';
}

}  // namespace

JobRanks::JobRanks(Communicator& world, int node) : launcher_(::getppid()) {
  const std::string here = kernel();
  const std::vector<std::string> addresses = world.all_gather_text(address(node));
  for (int rank = 0; rank < world.size(); ++rank) {
    const nlohmann::json other = nlohmann::json::parse(addresses[static_cast<size_t>(rank)]);
    const auto pid = other["pid"].get<int64_t>();
    RankView view{.rank = rank, .place = fmt::format("pid {} on {}", pid, other["host"].get<std::string>())};
    if (rank == world.rank()) {
      self_ = view;
      continue;
    }
    const bool near = other["kernel"] == here && other["node"] == node;
    several_machines_ |= !near;
    seen_.push_back({.pid = pid, .log = near ? map_flight_log(pid, other["log"]) : nullptr, .near = near});
    others_.push_back(std::move(view));
    processes_.push_back(near ? end_of(pid) : pollfd{.fd = -1, .events = 0, .revents = 0});
  }
  processes_.push_back(world.size() > 1 ? end_of(launcher_) : pollfd{.fd = -1, .events = 0, .revents = 0});
  world.barrier();  // until all are seen by all nobody's end would be understood
}

JobRanks::~JobRanks() {
  for (const pollfd& process : processes_) {
    if (process.fd >= 0) ::close(process.fd);
  }
}

const FlightLog* JobRanks::log_of(int rank) const {
  if (rank == self_.rank) return &flight_log();
  for (size_t i = 0; i < others_.size(); ++i) {
    if (others_[i].rank == rank) return seen_[i].log;
  }
  return nullptr;
}

std::string JobRanks::file_of(const std::string& folder, int rank) const {
  return fmt::format("{}/rank_{}.alive", folder, rank);
}

void JobRanks::look_at_self() { fill(self_, flight_log()); }

// Made anew each time: that makes a network file system tell its server, and readers never see half of it.
void JobRanks::tell(const std::string& folder) {
  if (!several_machines_ || folder.empty()) return;
  look_at_self();
  const std::string path = file_of(folder, self_.rank), fresh = path + ".tmp";
  std::error_code error;  // a folder that somebody removed, a full disk: the next beat tries again
  std::filesystem::create_directories(folder, error);
  std::ofstream(fresh) << to_json(self_, flight_log().beats(), flight_log().progress());
  std::filesystem::rename(fresh, path, error);
}

void JobRanks::forget(const std::string& folder) {
  if (!several_machines_ || folder.empty()) return;
  tell(folder);  // goodbye: readers that look just now have it
  std::error_code error;
  std::filesystem::remove(file_of(folder, self_.rank), error);
}

void JobRanks::look(const std::string& folder) {
  look_at_self();
  for (size_t i = 0; i < others_.size(); ++i) {
    RankView& view = others_[i];
    Seen& seen = seen_[i];
    int64_t beats = seen.beats, progress = seen.progress;
    if (seen.log != nullptr) {
      fill(view, *seen.log);
      beats = seen.log->beats(), progress = seen.log->progress();
    } else if (!folder.empty()) {
      from_json(first_line(file_of(folder, view.rank)), view, beats, progress);
    }
    if (seen.near) {
      view.stopped = !view.dead && is_stopped(seen.pid);
    } else {
      view.silent = beats == seen.beats ? view.silent + 1 : 0;
    }
    view.unmoved = progress == seen.progress ? view.unmoved + 1 : 0;
    seen.beats = beats, seen.progress = progress;
  }
}

std::vector<size_t> JobRanks::ended() {
  std::vector<size_t> found;
  for (size_t i = 0; i < others_.size(); ++i) {
    pollfd& process = processes_[i];
    if (!seen_[i].near || others_[i].dead) continue;
    if (process.fd >= 0 ? (process.revents & POLLIN) == 0 : state_of(seen_[i].pid) != kOver) continue;
    if (process.fd >= 0) ::close(process.fd);
    process.fd = -1;
    if (seen_[i].log != nullptr) fill(others_[i], *seen_[i].log);
    others_[i].dead = true;
    found.push_back(i);
  }
  return found;
}

bool JobRanks::launcher_ended() const {
  return size() > 1 && ((processes_.back().revents & POLLIN) != 0 || ::getppid() != launcher_);
}

bool JobRanks::all_have_told() const {
  for (size_t i = 0; i < others_.size(); ++i) {
    const FlightLog* log = seen_[i].log;
    if (log == nullptr || log->said_goodbye() || !log->last_words().text.empty()) continue;
    if (!is_stopped(seen_[i].pid) && state_of(seen_[i].pid) != kOver) return false;
  }
  return true;
}

bool JobRanks::speaks() const {
  for (size_t i = 0; i < others_.size(); ++i) {
    if (seen_[i].near && !others_[i].dead && others_[i].rank < self_.rank) return false;
  }
  return true;
}

}  // namespace ziggurat::watch
