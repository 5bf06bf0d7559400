// The one thread that a model works on: every thread that calls parallel_for would gather workers of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ziggurat::serve {

class ModelThread {
 public:
  ModelThread(int threads, int64_t most_waiting);
  ~ModelThread();  // after what waits

  // Returns when the work is done; throws what it throws. ApiError(503) if too many wait already. What the
  // caller's own thread does `meanwhile` must not throw, and end when the work does.
  void run(const std::function<void()>& work, const std::function<void()>& meanwhile = {});
  int64_t waiting() const;

 private:
  struct Job;
  void loop(int threads);

  const int64_t most_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job*> jobs_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace ziggurat::serve
