#include <algorithm>
#include <memory>

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "runtime/worker_pool.h"
#include <ziggurat/core/error.h>

namespace ziggurat {

namespace {

thread_local int worker_index = 0;  // of a pool's thread
thread_local std::unique_ptr<WorkerPool> pool;

// A forked process has no workers, and cannot wait for them.
void forget_pool_after_fork() { static_cast<void>(pool.release()); }

WorkerPool& pool_of(int threads) {
  [[maybe_unused]] static const int once = pthread_atfork(nullptr, nullptr, forget_pool_after_fork);
  if (!pool || pool->threads() != threads) {
    pool.reset();
    pool = std::make_unique<WorkerPool>(threads);
  }
  return *pool;
}

}  // namespace

int thread_count() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

void set_thread_count(int n, const char* option) {
  const int cores = available_cores();
  check(n <= kThreadsPerCore * cores, ErrorKind::config,
        "{}: expected at most {} threads, {} for each of the {} cores that this process may run on, got {}",
        option, kThreadsPerCore * cores, kThreadsPerCore, cores, n);
  assume_thread_count(n);
}

void assume_thread_count(int n) { omp_set_num_threads(std::max(1, n)); }

std::string choose_thread_count(int asked, const char* option, int local_ranks) {
  set_thread_count(asked > 0 ? asked : std::max(1, available_cores() / local_ranks), option);
  const int n = thread_count(), cores = available_cores();
  const auto machine = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));  // ranks may each have some of it
  if (n <= cores && n * local_ranks <= machine) return "";
  const int shared = n > cores ? cores : machine, threads = n > cores ? n : n * local_ranks;
  return fmt::format(
      "{} threads share {} cores ({} times as many): they wait for each other. {}: {} would be one a core",
      threads, shared, (threads + shared - 1) / shared, option,
      std::max(1, std::min(cores, machine / local_ranks)));
}

int thread_index() { return worker_index + omp_get_thread_num(); }

void set_worker_index(int index) { worker_index = index; }

OneThread::OneThread() : outer_(omp_get_max_threads()) { omp_set_num_threads(1); }

OneThread::~OneThread() { omp_set_num_threads(outer_); }

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

void run_in_pieces(int64_t n, RunPiece call, const void* body) {
  const int threads = thread_count();
  if (threads == 1) return call(body, 0, n);
  pool_of(threads).run(n, call, body);
}

void run_on_every_thread(RunPiece call, const void* body) {
  const int threads = thread_count();
  if (threads == 1) return call(body, 0, 1);
  pool_of(threads).run_on_every_thread(call, body);
}

}  // namespace ziggurat
