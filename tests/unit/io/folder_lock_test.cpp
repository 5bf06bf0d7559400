// One job writes in a folder: who lives is refused to others, who died is followed.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/io/folder_lock.h>

namespace ziggurat {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_text;
using namespace std::chrono_literals;

constexpr LockTimes kQuick{.heartbeat = 100ms, .stale = 600ms};

class FolderLockTest : public ::testing::Test {
 protected:
  FolderLock take() const { return FolderLock(folder_.path(), "run.lock", kQuick); }
  std::string refused() const {
    return error_of(ErrorKind::config, [&] { take(); });
  }
  std::filesystem::path file() const { return folder_ / "run.lock"; }

  // The lock of a job on another machine, or (`kernel`: ours) on this one.
  void write_owner(const std::string& kernel, int64_t pid = 4242) const {
    write_text(file(), fmt::format(R"({{"host":"node7","pid":{},"job":"SLURM_JOB_ID 17","started":)"
                                   R"("2026-01-02T03:04:05Z","command":"ziggurat train c.yaml",)"
                                   R"("kernel":"{}","id":"feed"}})"
                                   "\n",
                                   pid, kernel));
  }
  void make_old(std::chrono::seconds age) const {
    struct timespec times[2];
    ::clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age.count();
    times[1] = times[0];
    ASSERT_EQ(::utimensat(AT_FDCWD, file().c_str(), times, 0), 0);
  }
  static std::string this_kernel() {
    std::ifstream in("/proc/sys/kernel/random/boot_id");
    std::string id;
    std::getline(in, id);
    return id;
  }

  TempDir folder_;
};

TEST_F(FolderLockTest, NamesItsOwnerAndIsGoneAfterwards) {
  ::setenv("SLURM_JOB_ID", "4711", 1);
  {
    const FolderLock lock = take();
    EXPECT_EQ(lock.state(), LockState::held);
    const LockOwner owner = lock.owner();
    EXPECT_EQ(owner.pid, ::getpid());
    EXPECT_EQ(owner.job, "SLURM_JOB_ID 4711");
    EXPECT_THAT(owner.command, HasSubstr("ziggurat_tests"));
    EXPECT_THAT(refused(), AllOf(HasSubstr(file().string()), HasSubstr(fmt::format("pid {} on", ::getpid())),
                                 HasSubstr("SLURM_JOB_ID 4711"), HasSubstr(owner.started),
                                 HasSubstr("choose another output folder")));
    EXPECT_EQ(lock.state(), LockState::held);
  }
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_FALSE(std::filesystem::exists(file()));
  take();
}

TEST_F(FolderLockTest, ALiveProcessIsRefusedAndAKilledOneFollowed) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FolderLock lock = take();
    [[maybe_unused]] const ssize_t n = ::write(ready[1], "!", 1);
    for (;;) ::pause();
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  EXPECT_THAT(refused(), HasSubstr(fmt::format("pid {} on", child)));
  ::kill(child, SIGSTOP);  // no heartbeat, but alive
  std::this_thread::sleep_for(kQuick.stale + 100ms);
  EXPECT_THAT(refused(), HasSubstr(fmt::format("pid {} on", child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(std::filesystem::exists(file()));
  const FolderLock lock = take();  // at once, whatever the heartbeat's age
  EXPECT_EQ(lock.owner().pid, ::getpid());
}

TEST_F(FolderLockTest, APidThatLivesAgainDoesNotMatter) {
  write_owner(this_kernel(), ::getppid());
  const FolderLock lock = take();
  EXPECT_EQ(lock.state(), LockState::held);
}

TEST_F(FolderLockTest, AnOldHeartbeatOfAnotherMachineIsTakenOver) {
  write_owner("another kernel");
  make_old(3600s);
  const FolderLock lock = take();
  EXPECT_EQ(lock.owner().pid, ::getpid());
}

TEST_F(FolderLockTest, AnotherMachineIsGivenTimeToShowALifeSign) {
  write_owner("another kernel");
  const auto begin = std::chrono::steady_clock::now();
  const FolderLock lock = take();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, kQuick.stale / 2);
}

TEST_F(FolderLockTest, ABeatingHeartOnAnotherMachineIsRefused) {
  write_owner("another kernel");
  std::atomic<bool> done = false;
  std::thread heart([&] {
    while (!done) {
      ::utimensat(AT_FDCWD, file().c_str(), nullptr, 0);
      std::this_thread::sleep_for(50ms);
    }
  });
  const std::string message = refused();
  done = true;
  heart.join();
  EXPECT_THAT(message, AllOf(HasSubstr("pid 4242 on node7"), HasSubstr("SLURM_JOB_ID 17"),
                             HasSubstr("2026-01-02T03:04:05Z"), HasSubstr("ziggurat train c.yaml")));
}

TEST_F(FolderLockTest, TheOwnersHeartBeats) {
  const FolderLock lock = take();
  make_old(3600s);
  struct stat status {};
  do {  // for ever, if it does not
    std::this_thread::sleep_for(kQuick.heartbeat);
    ASSERT_EQ(::stat(file().c_str(), &status), 0);
  } while (status.st_mtime < std::time(nullptr) - 60);
}

TEST_F(FolderLockTest, OfTwoWhoFollowADeadOneOneGoesOn) {
  write_owner("another kernel");
  make_old(3600s);
  std::atomic<int> owners = 0, refusals = 0;
  std::vector<std::thread> jobs;
  std::atomic<bool> end = false;
  for (int i = 0; i < 4; ++i) {
    jobs.emplace_back([&] {
      try {
        const FolderLock lock = take();
        ++owners;
        while (!end) std::this_thread::sleep_for(10ms);
      } catch (const Error&) {
        ++refusals;
      }
    });
  }
  while (owners + refusals < 4) std::this_thread::sleep_for(10ms);
  end = true;
  for (std::thread& job : jobs) job.join();
  EXPECT_EQ(owners, 1);
}

TEST_F(FolderLockTest, AFileThatNamesNobodyIsTaken) {
  for (const char* text : {"", "\n", "{\"host\":", "[1]", "{\"id\": 5}"}) {
    write_text(file(), text);
    const FolderLock lock = take();
    EXPECT_EQ(lock.state(), LockState::held) << text;
  }
}

TEST_F(FolderLockTest, ALostLockIsNoticed) {
  std::optional<FolderLock> lock(take());
  std::filesystem::remove(file());
  EXPECT_EQ(lock->state(), LockState::gone);
  const FolderLock second = take();
  EXPECT_EQ(lock->state(), LockState::taken);
  EXPECT_EQ(lock->owner().id, second.owner().id);
  lock.reset();
  EXPECT_EQ(second.state(), LockState::held) << "who lost the lock does not remove the other's";
}

TEST_F(FolderLockTest, WhatCannotBeWrittenIsNamed) {
  const auto message = [&](const std::string& folder) {
    return error_of(ErrorKind::config, [&] { FolderLock lock(folder, "run.lock", kQuick); });
  };
  EXPECT_THAT(message(folder_ / "nowhere"), AllOf(HasSubstr("nowhere/run.lock"), HasSubstr("No such file")));
  EXPECT_THAT(message("/proc"), HasSubstr("/proc/run.lock"));
}

}  // namespace
}  // namespace ziggurat
