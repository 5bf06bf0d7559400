#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/lock_owner.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/io/descriptor.h>
#include <ziggurat/io/folder_lock.h>

namespace ziggurat {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

[[noreturn]] void cannot_lock(ErrorKind kind, const std::string& path, int error) {
  fail(
      kind,
      "cannot write the lock {}: {} (errno {}); make room or get the right to write there, or choose another "
      "output folder",
      path, std::strerror(error), error);
}

nanoseconds modified(const struct stat& status) {
  return std::chrono::seconds(status.st_mtim.tv_sec) + nanoseconds(status.st_mtim.tv_nsec);
}

// One look at the file. It is opened anew each time: that makes a network file system ask its server.
struct Look {
  bool there = false;
  ino_t inode = 0;
  nanoseconds touched{};
  LockOwner owner;
};

Look look_at(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file.is_open() || ::fstat(file.get(), &status) != 0) return {};
  std::array<char, 4096> text{};
  const ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
  const std::string content(text.data(), static_cast<size_t>(std::max<ssize_t>(0, n)));
  return {true, status.st_ino, modified(status), owner_from(content.substr(0, content.find('\n')))};
}

// How long ago the file was touched, by the file server's clock: it stamps a file of ours.
nanoseconds age(const std::string& path, const LockOwner& me, nanoseconds touched) {
  const std::string probe = path + "." + me.id + ".tmp";
  const Descriptor file(::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  struct stat status {};
  const bool ok = file.is_open() && ::write(file.get(), "?", 1) == 1 && ::fstat(file.get(), &status) == 0;
  ::unlink(probe.c_str());
  return ok ? modified(status) - touched : nanoseconds(0);
}

enum class Flock { ours, others, unsupported };

Flock try_flock(int fd) {
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Flock::others;
    if (errno != EINTR) return Flock::unsupported;
  }
  return Flock::ours;
}

}  // namespace

struct FolderLock::Held {
  Held(const std::string& folder, const std::string& file_name, const LockTimes& lock_times, ErrorKind kind)
      : path(folder + "/" + file_name), times(lock_times), unwritable(kind), me(this_process()) {
    constexpr int kAttempts = 100;  // each lost to somebody who made or removed the file meanwhile
    for (int i = 1; !attempt(); ++i) {
      if (i == kAttempts) cannot_lock(unwritable, path, ENOENT);
    }
    heart = std::thread([this] { beat(); });
  }

  ~Held() {
    {
      const std::lock_guard lock(mutex);
      ending = true;
    }
    wake.notify_all();
    heart.join();
    if (state() == LockState::held)
      ::unlink(path.c_str());  // before the kernel's lock goes with the descriptor
  }

  // False: the file changed under our hands, look again.
  bool attempt() {
    constexpr mode_t kMode = 0644;
    file = Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kMode));
    const bool made = file.is_open();
    if (!made && errno == EEXIST) {
      file = Descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      if (!file.is_open() && errno == ENOENT) return false;  // just given back
    }
    if (!file.is_open()) cannot_lock(unwritable, path, errno);
    const Flock flock = try_flock(file.get());
    if (made && flock != Flock::others) return write_name();

    Look found = look_at(path);
    // Somebody who has just made the file writes his name next.
    for (int i = 0; found.there && found.owner.id.empty() && i < 20; ++i) {
      std::this_thread::sleep_for(times.heartbeat / 200);
      found = look_at(path);
    }
    struct stat status {};
    if (::fstat(file.get(), &status) != 0 || !found.there || found.inode != status.st_ino) return false;
    const bool named = !found.owner.id.empty();
    const bool same_kernel = named && !me.kernel.empty() && found.owner.kernel == me.kernel;
    if (flock == Flock::others && (same_kernel || !named)) refuse(found.owner);
    if (flock == Flock::ours && same_kernel) {  // so the kernel says that its owner is dead
      tell_takeover(found.owner);
      return write_name();
    }
    if (named && !died(found)) return false;
    if (flock == Flock::others) refuse(found.owner);  // stopped, not dead
    if (named) tell_takeover(found.owner);
    write_name();
    // Without the kernel's word two jobs may write their names at once; the later one stands.
    std::this_thread::sleep_for(times.heartbeat / 10);
    const Look now = look_at(path);
    if (now.there && now.owner.id != me.id) refuse(now.owner);
    return now.there;
  }

  void tell_takeover(const LockOwner& owner) const {
    warn("{}: taken over from a job that is dead: {}", path, owner.text());
  }

  [[noreturn]] void refuse(const LockOwner& owner) const {
    fail(ErrorKind::config,
         "{} is held by another job that is alive: {}. Wait until it ends or stop it, or choose another "
         "output "
         "folder",
         path, owner.text());
  }

  // Watches an owner's heartbeat. True: it died. False: the lock changed hands or was given back. Throws when
  // the owner lives.
  bool died(const Look& found) const {
    const nanoseconds since =
        std::clamp<nanoseconds>(age(path, me, found.touched), nanoseconds(0), times.stale);
    const Clock::time_point deadline = Clock::now() + (times.stale - since);
    if (since < times.stale) {
      info("{}: waiting up to {:.0f} s for a sign of life from {}", path,
           std::chrono::duration<double>(times.stale - since).count(), found.owner.text());
    }
    while (Clock::now() < deadline) {
      std::this_thread::sleep_for(times.heartbeat / 10);
      const Look now = look_at(path);
      if (!now.there || now.owner.id != found.owner.id) return false;
      if (now.touched != found.touched) refuse(found.owner);
    }
    return true;
  }

  bool write_name() {
    const std::string text = to_json(me);
    const ssize_t n = ::pwrite(file.get(), text.data(), text.size(), 0);
    if (n != static_cast<ssize_t>(text.size()) || ::ftruncate(file.get(), n) != 0) {
      const int error = n < 0 ? errno : ENOSPC;
      ::unlink(path.c_str());
      cannot_lock(unwritable, path, error);
    }
    ::fsync(file.get());
    return true;
  }

  LockState state() const {
    const Look now = look_at(path);
    if (!now.there) return LockState::gone;
    return now.owner.id == me.id ? LockState::held : LockState::taken;
  }

  void beat() {
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, times.heartbeat, [this] { return ending; })) {
      ::futimens(file.get(), nullptr);
    }
  }

  std::string path;
  LockTimes times;
  ErrorKind unwritable;
  LockOwner me;
  Descriptor file;
  std::mutex mutex;
  std::condition_variable wake;
  bool ending = false;
  std::thread heart;
};

FolderLock::FolderLock(const std::string& folder, const std::string& file_name, const LockTimes& times,
                       ErrorKind unwritable)
    : held_(std::make_unique<Held>(folder, file_name, times, unwritable)) {}

FolderLock::~FolderLock() = default;
FolderLock::FolderLock(FolderLock&&) noexcept = default;
FolderLock& FolderLock::operator=(FolderLock&&) noexcept = default;

LockState FolderLock::state() const { return held_->state(); }
LockOwner FolderLock::owner() const { return look_at(held_->path).owner; }
const std::string& FolderLock::path() const { return held_->path; }

}  // namespace ziggurat
