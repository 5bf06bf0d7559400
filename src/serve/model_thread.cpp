#include "serve/model_thread.h"

#include <exception>

#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

struct ModelThread::Job {
  const std::function<void()>* work;
  std::exception_ptr error = nullptr;
  bool done = false;
};

ModelThread::ModelThread(int threads, int64_t most_waiting)
    : most_waiting_(most_waiting), thread_([this, threads] { loop(threads); }) {}

ModelThread::~ModelThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ModelThread::run(const std::function<void()>& work, const std::function<void()>& meanwhile) {
  Job job{&work};
  {
    std::unique_lock lock(mutex_);
    if (std::ssize(jobs_) >= most_waiting_) {
      throw ApiError(503, "too many requests wait already: try again later", {}, "overloaded");
    }
    jobs_.push_back(&job);
    changed_.notify_all();
    if (meanwhile) {
      lock.unlock();
      meanwhile();
      lock.lock();
    }
    changed_.wait(lock, [&] { return job.done; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

int64_t ModelThread::waiting() const {
  const std::lock_guard lock(mutex_);
  return std::ssize(jobs_);
}

void ModelThread::loop(int threads) {
  set_thread_count(threads);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job& job = *jobs_.front();
    lock.unlock();
    try {
      (*job.work)();
    } catch (...) {
      job.error = std::current_exception();
    }
    lock.lock();
    jobs_.pop_front();
    job.done = true;
    changed_.notify_all();
  }
}

}  // namespace ziggurat::serve
