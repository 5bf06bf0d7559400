// A folder that one job at a time writes in, on one machine or on a shared file system.
//
// The lock is a file in the folder that names its owner. On one kernel flock() decides: the kernel gives the
// lock back when its owner dies, however it dies. Owners on other machines, and file systems without flock(),
// are judged by heartbeat: an owner touches the file every few seconds, and who has not done so for a minute
// is dead.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include <ziggurat/core/error.h>

namespace ziggurat {

struct LockOwner {
  std::string host;
  std::string kernel;  // boot id: tells two machines of one name apart, and a machine before its reboot
  int64_t pid = 0;
  std::string job;      // of the batch system, e.g. "SLURM_JOB_ID 4711"; or empty
  std::string started;  // UTC, ISO 8601
  std::string command;
  std::string id;  // random: this lock and no other

  std::string text() const;  // "pid 17 on node3, SLURM_JOB_ID 4711, since 2026-01-01T00:00:00Z: ziggurat ..."
};

struct LockTimes {
  std::chrono::milliseconds heartbeat{10'000};
  std::chrono::milliseconds stale{60'000};  // without a heartbeat an owner counts as dead
};

enum class LockState {
  held,
  gone,   // the file was removed, or the folder with it
  taken,  // it is another job's now
};

class FolderLock {
 public:
  // Takes the lock of an existing folder. A dead owner's is taken over, with a log line; while it is not
  // known whether an owner on another machine lives, waits (up to `stale`, with a log line). Throws
  // Error(config) naming the owner and the cure when it lives; an error of kind `unwritable` with path and
  // errno when there can be no lock.
  explicit FolderLock(const std::string& folder, const std::string& file_name = "run.lock",
                      const LockTimes& times = {}, ErrorKind unwritable = ErrorKind::config);
  ~FolderLock();  // gives it back and removes the file, if it is still ours
  FolderLock(FolderLock&&) noexcept;
  FolderLock& operator=(FolderLock&&) noexcept;

  LockState state() const;  // a few system calls
  LockOwner owner() const;  // who the file names now; all empty if there is none
  const std::string& path() const;

 private:
  struct Held;
  std::unique_ptr<Held> held_;
};

}  // namespace ziggurat
