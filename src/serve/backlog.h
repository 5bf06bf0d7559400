// What a stream has to say to a client, between the model, which must not wait for one, and the thread of the
// client's connection.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ziggurat::serve {

class Backlog {
 public:
  // While it lives, more may come.
  class End {
   public:
    explicit End(Backlog& backlog) : backlog_(backlog) {}
    ~End() { backlog_.end(); }
    End(const End&) = delete;
    End& operator=(const End&) = delete;

   private:
    Backlog& backlog_;
  };

  explicit Backlog(size_t most_bytes) : most_bytes_(most_bytes) {}

  // The model's side. False once nobody reads any more, or so slowly that most_bytes would be exceeded.
  bool put(std::string_view part) {
    const std::lock_guard lock(mutex_);
    too_slow_ = too_slow_ || (!gone_ && pending_.size() + part.size() > most_bytes_);
    if (gone_ || too_slow_) return false;
    pending_ += part;
    changed_.notify_all();
    return true;
  }
  bool gone() const {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

  // The client's side. All that was put since the last time; empty: nothing came for a while; nullopt: no
  // more comes.
  std::optional<std::string> take() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kAWhile, [&] { return ended_ || !pending_.empty(); });
    if (ended_ && (pending_.empty() || too_slow_)) return std::nullopt;
    return std::exchange(pending_, {});
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    pending_.clear();
  }
  bool too_slow() const {
    const std::lock_guard lock(mutex_);
    return too_slow_;
  }

 private:
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  static constexpr std::chrono::milliseconds kAWhile{200};

  const size_t most_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string pending_;
  bool ended_ = false, gone_ = false, too_slow_ = false;
};

}  // namespace ziggurat::serve
