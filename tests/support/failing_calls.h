// System calls of room io that fail, are cut short, interrupted, or end the process, as a test says.
#pragma once

#include <atomic>
#include <cerrno>
#include <mutex>
#include <string>

#include "src/io/system_calls.h"

namespace ziggurat::test {

// Lives as long as calls are to be watched; one at a time.
class WatchedCalls {
 public:
  using Fault = system_calls::Fault;
  explicit WatchedCalls(system_calls::FaultHook hook) : hook_(std::move(hook)) {
    system_calls::fault_hook.store(&hook_);
  }
  ~WatchedCalls() { system_calls::fault_hook.store(nullptr); }
  WatchedCalls(const WatchedCalls&) = delete;
  WatchedCalls& operator=(const WatchedCalls&) = delete;

 private:
  system_calls::FaultHook hook_;
};

// The nth call of this name fails (from 1 on), and, `for_ever`, all that follow.
class FailingCalls {
 public:
  FailingCalls(const std::string& name, int nth, int error, bool for_ever = false)
      : watched_([this, name, nth, error, for_ever](std::string_view call, const std::filesystem::path&) {
          if (call != name) return WatchedCalls::Fault{};
          const int number = ++seen_;
          return number == nth || (for_ever && number > nth) ? WatchedCalls::Fault{.error = error}
                                                             : WatchedCalls::Fault{};
        }),
        nth_(nth) {}

  bool came_to_it() const { return seen_ >= nth_; }

 private:
  std::atomic<int> seen_ = 0;
  WatchedCalls watched_;
  int nth_;
};

inline constexpr const char* kWritingCalls[] = {"open", "write", "fsync", "close", "rename", "mkdir"};

}  // namespace ziggurat::test
