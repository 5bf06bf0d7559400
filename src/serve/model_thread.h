// The one thread that a model works on: every thread that calls parallel_for would gather workers of its own.
// Requests of all connections are written there side by side.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "serve/backlog.h"
#include "serve/completion.h"
#include <ziggurat/core/timer.h>
#include <ziggurat/infer/engine.h>

namespace ziggurat::serve {

struct ModelThreadOptions {
  int threads = 1;             // of parallel_for
  int64_t most_requests = 96;  // under way or waiting
  double most_seconds = 0;     // that a request may take; 0: any
  // Told when ranks cannot go on together; does not return.
  std::function<void(const std::exception&)> on_lost = {};
};

// Times of a request since it was handed in, in seconds.
struct RequestTimes {
  double queued = 0;       // until the model began with it
  double first_token = 0;  // 0: there was none
  double whole = 0;
};

// How the engine stands, and what it has done so far.
struct ModelState {
  infer::SchedulerCounts counts;
  int64_t requests = 0;  // under way or waiting
  int64_t cache_blocks = 0;
  std::vector<Profile::Entry> spans;  // where the model's time went
};

class ModelThread {
 public:
  ModelThread(const Served& served, const ModelThreadOptions& options);
  ~ModelThread();  // after what was begun

  // Hands a completion in; its pieces come on the model's thread. `backlog` ends when the work does; once it
  // is gone() the rest is not computed. Throws ApiError(429) where too many requests are under way.
  class Job;
  std::shared_ptr<Job> begin(std::unique_ptr<Completion> completion, std::shared_ptr<Backlog> backlog);

  ModelState state() const;

 private:
  void loop(infer::Engine& engine, Profile& profile);
  void submit(infer::Engine& engine, Job& job);
  void look_after(infer::Engine& engine);
  void step(infer::Engine& engine);
  void give_up(infer::Engine& engine, Job& job, std::exception_ptr why);
  void finish(Job& job);
  int64_t seconds_until_room() const;

  const Served served_;
  const ModelThreadOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> incoming_;
  ModelState state_;
  double seconds_of_requests_ = 0;  // of those that ended
  int64_t ended_requests_ = 0;
  bool ending_ = false;

  // Of the thread alone.
  std::vector<std::shared_ptr<Job>> jobs_;
  std::map<int64_t, std::pair<Job*, size_t>> choices_;  // by the id of their text
  int64_t next_id_ = 0;

  std::thread thread_;
};

// A completion that was handed in. Once its backlog has ended these stand.
class ModelThread::Job {
 public:
  // Throws what ended it early.
  void check() const {
    if (error_) std::rethrow_exception(error_);
  }
  const Completion& completion() const { return *completion_; }
  const RequestTimes& times() const { return times_; }

 private:
  friend class ModelThread;
  std::unique_ptr<Completion> completion_;
  std::shared_ptr<Backlog> backlog_;
  std::optional<Backlog::End> end_;
  Timer since_;
  RequestTimes times_;
  int64_t first_id_ = 0;
  size_t count_ = 0, open_ = 0;  // choices, and those of them that have not ended
  bool given_up_ = false;
  std::exception_ptr error_ = nullptr;
};

}  // namespace ziggurat::serve
