#include "comm/background.h"

#include <algorithm>
#include <chrono>
#include <system_error>

#include <sys/prctl.h>

#include <ziggurat/core/log.h>

namespace ziggurat::comm {

namespace {
// Between looks for what others have sent: at first what a few slots take to fill, then ever longer, so that
// ranks that are far behind cost little.
constexpr auto kShortestSleep = std::chrono::microseconds(50), kLongestSleep = std::chrono::microseconds(800);
}  // namespace

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool Background::add(const void* who, Move move) {
  {
    const std::lock_guard lock(mutex_);
    if (impossible_) return false;
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([this] { run(); });
      } catch (const std::system_error& error) {
        impossible_ = true;
        warn("no communication thread ({}): gradients are summed between the steps of backward",
             error.what());
        return false;
      }
    }
    moves_.try_emplace(who, std::move(move));
    added_again_ = added_again_ || visited_ == who;
  }
  wake_.notify_one();
  return true;
}

void Background::remove(const void* who) {
  std::unique_lock lock(mutex_);
  left_.wait(lock, [&] { return visited_ != who; });
  moves_.erase(who);
}

Moved Background::visit(const void* who, const Move& move, std::unique_lock<std::mutex>& lock) {
  visited_ = who, added_again_ = false;
  lock.unlock();
  Moved result = move();
  lock.lock();
  visited_ = nullptr;
  left_.notify_all();
  return result == Moved::all && added_again_ ? Moved::something : result;
}

void Background::run() {
  prctl(PR_SET_NAME, "communication");
  prctl(PR_SET_TIMERSLACK, 1000);  // ns: the system's own would double the shortest sleep
  auto sleep = kShortestSleep;
  std::unique_lock lock(mutex_);
  while (!ends_) {
    if (moves_.empty()) {
      wake_.wait(lock);
      sleep = kShortestSleep;
      continue;
    }
    bool moved = false;
    for (auto user = moves_.begin(); user != moves_.end();) {
      const void* const who = user->first;
      const Moved result = visit(who, user->second, lock);
      moved = moved || result != Moved::nothing;
      if (result == Moved::all) moves_.erase(who);
      user = moves_.upper_bound(who);
    }
    if (moved) {
      sleep = kShortestSleep;
    } else {
      wake_.wait_for(lock, sleep);
      sleep = std::min(2 * sleep, kLongestSleep);
    }
  }
}

}  // namespace ziggurat::comm
