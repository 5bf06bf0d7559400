#include "runtime/worker_pool.h"

#include <algorithm>
#include <system_error>

#include <immintrin.h>
#include <omp.h>
#include <pthread.h>

#include <ziggurat/core/error.h>

namespace ziggurat {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Between two loops of a token lie microseconds; waking a thread takes tens of them.
constexpr auto kSpin = 100us;
// How long a caller with nothing left to do waits before it asks whether the others have a core at all.
constexpr auto kPatience = 50us;
// A worker without a core costs its caller a time slice. Where such losses are more than this part of the
// time that they worked together, a second thread gains less, and the caller works alone for so many times a
// loss; longer where that comes again.
constexpr int kWorthIt = 4, kRest = 20;
constexpr Clock::duration kLongestRest = 500ms;

// Whether `over` came true within this time.
template <class Over>
bool spin(Clock::duration time, const Over& over) {
  constexpr int kLooksPerTime = 64;
  const auto end = Clock::now() + time;
  do {
    for (int i = 0; i < kLooksPerTime; ++i) {
      if (over()) return true;
      _mm_pause();
    }
  } while (Clock::now() < end);
  return false;
}

double seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

WorkerPool::WorkerPool(int threads) : spins_(threads <= available_cores()) {
  try {
    for (int i = 1; i < threads; ++i) {
      Worker& worker = workers_.emplace_back();
      worker.thread = std::thread(&WorkerPool::work, this, std::ref(worker), i);
      pthread_getcpuclockid(worker.thread.native_handle(), &worker.clock);
    }
  } catch (const std::system_error& error) {
    const size_t got = workers_.size();
    workers_.pop_back();
    stop();
    fail(ErrorKind::device,
         "cannot start {} threads, the system gives {}: {}. Ask for fewer threads, or raise the limit of "
         "processes (ulimit -u) or of addresses (ulimit -v)",
         threads, got, error.what());
  }
}

WorkerPool::~WorkerPool() { stop(); }

void WorkerPool::stop() {
  stopping_ = true;
  ++loop_;
  loop_.notify_all();
  for (Worker& worker : workers_) worker.thread.join();
}

void WorkerPool::run(int64_t n, RunPiece call, const void* body) {
  check(n <= int64_t{UINT32_MAX}, ErrorKind::internal, "[parallel_for] {} units in one loop", n);
  const OneThread inside;
  if (Clock::now() < alone_until_) return call(body, 0, n);
  publish(static_cast<uint32_t>(n), false, call, body);
  wait_for_pieces(static_cast<uint32_t>(n));
}

void WorkerPool::run_on_every_thread(RunPiece call, const void* body) {
  const OneThread inside;
  const auto pieces = static_cast<uint32_t>(threads());
  publish(pieces, true, call, body);
  wait_for_pieces(pieces);
}

void WorkerPool::publish(uint32_t pieces, bool one_each, RunPiece call, const void* body) {
  const uint32_t loop = loop_.load(std::memory_order_relaxed) + 1;
  call_.store(call, std::memory_order_release);
  body_.store(body, std::memory_order_release);
  pieces_.store(pieces, std::memory_order_release);
  one_each_.store(one_each, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  claims_.store(uint64_t{loop} << 32 | pieces, std::memory_order_release);
  loop_.store(loop, std::memory_order_release);
  loop_.notify_all();
  take_pieces(caller_holds_piece_);
}

void WorkerPool::take_pieces(std::atomic<bool>& holds_piece) {
  uint64_t claims = claims_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(claims) > 0) {
    // Of this loop, if the exchange below succeeds: then it was not over in between.
    const RunPiece call = call_.load(std::memory_order_acquire);
    const void* body = body_.load(std::memory_order_acquire);
    const uint32_t pieces = pieces_.load(std::memory_order_acquire);
    const bool one_each = one_each_.load(std::memory_order_acquire);
    const auto left = static_cast<uint32_t>(claims);
    // At first many, which lie together in memory; in the end one, so that all threads end together.
    const uint32_t take = one_each ? 1 : std::max(1u, left / static_cast<uint32_t>(2 * threads()));
    if (!claims_.compare_exchange_weak(claims, claims - take, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    holds_piece.store(true, std::memory_order_relaxed);
    call(body, pieces - left, pieces - left + take);
    // Who holds its piece until all are taken gets no second one.
    while (one_each && static_cast<uint32_t>(claims_.load(std::memory_order_acquire)) > 0) {
      std::this_thread::yield();
    }
    holds_piece.store(false, std::memory_order_relaxed);
    if (done_.fetch_add(take, std::memory_order_acq_rel) + take == pieces) done_.notify_one();
    claims = claims_.load(std::memory_order_acquire);
  }
}

void WorkerPool::wait_for_pieces(uint32_t pieces) {
  const auto over = [&] { return done_.load(std::memory_order_acquire) == pieces; };
  const auto sleep = [&] {  // which leaves the core to the others
    for (uint32_t done = done_.load(); done != pieces; done = done_.load()) done_.wait(done);
  };
  if (!spins_) return sleep();
  if (spin(kPatience, over)) return;
  for (Worker& worker : workers_) worker.ran_before = seconds(worker.clock);
  const Clock::time_point begin = Clock::now();
  if (spin(kPatience, over)) return;
  const double waited = std::chrono::duration<double>(Clock::now() - begin).count();
  bool starved = false;
  for (const Worker& worker : workers_) {
    starved |= worker.holds_piece && seconds(worker.clock) - worker.ran_before < waited / 2;
  }
  sleep();
  if (!starved) return;  // a long piece
  const Clock::time_point now = Clock::now();
  lost_ = lost_ / 2 + (now - begin);
  together_ = together_ / 2 + std::max<Clock::duration>(begin - together_since_, {});
  together_since_ = now;
  if (lost_ < together_ / kWorthIt) {
    rest_ = {};
    return;
  }
  rest_ = std::min(std::max<Clock::duration>(2 * rest_, kRest * (now - begin)), kLongestRest);
  alone_until_ = together_since_ = now + rest_;
}

void WorkerPool::work(Worker& self, int index) {
  set_worker_index(index);
  omp_set_num_threads(1);  // of loops inside a piece, and of the matrix library there
  for (uint32_t seen = 0; !stopping_;) {
    const auto new_loop = [&] { return loop_.load(std::memory_order_acquire) != seen; };
    if (!spins_ || !spin(kSpin, new_loop)) loop_.wait(seen);
    seen = loop_.load(std::memory_order_acquire);
    take_pieces(self.holds_piece);
  }
}

}  // namespace ziggurat
