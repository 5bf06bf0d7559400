// Threads that take the pieces of a loop as they come. A loop ends when its last piece is done, not when all
// threads have arrived: one that the system does not run meanwhile takes none.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <deque>
#include <thread>

#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {

void set_worker_index(int index);  // what thread_index() says on the calling thread

// Of one calling thread, who takes pieces too: calls of several threads have a pool each.
class WorkerPool {
 public:
  explicit WorkerPool(
      int threads);  // the caller's included; error (device): the system gives no more threads
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  void run(int64_t n, RunPiece call, const void* body);
  void run_on_every_thread(RunPiece call, const void* body);

 private:
  using Clock = std::chrono::steady_clock;
  struct alignas(64) Worker {
    std::atomic<bool> holds_piece = false;
    clockid_t clock{};      // of its time on a core
    double ran_before = 0;  // seconds, when the caller began to wonder whether it has one
    std::thread thread;
  };

  void publish(uint32_t pieces, bool one_each, RunPiece call, const void* body);
  void take_pieces(std::atomic<bool>& holds_piece);
  void wait_for_pieces(uint32_t pieces);
  void work(Worker& self, int index);
  void stop();

  std::deque<Worker> workers_;
  bool spins_;  // not where threads share cores
  std::atomic<bool> stopping_ = false, caller_holds_piece_ = false;

  // The loop: written while none is left to take. Its number is the upper half of `claims_`, and how many of
  // its pieces nobody has taken yet the lower half. Who takes some exchanges the whole word, so that no late
  // thread takes a piece of a loop that it has not read.
  std::atomic<RunPiece> call_ = nullptr;
  std::atomic<const void*> body_ = nullptr;
  std::atomic<uint32_t> pieces_ = 0;
  std::atomic<bool> one_each_ = false;
  alignas(64) std::atomic<uint64_t> claims_ = 0;
  alignas(64) std::atomic<uint32_t> loop_ = 0;  // the number alone: workers sleep on it
  alignas(64) std::atomic<uint32_t> done_ = 0;  // pieces: the caller sleeps on it

  // The caller works alone until then, after workers were kept from a core while they held a piece: recent
  // times that it lost so, and that they worked together.
  Clock::time_point alone_until_{}, together_since_ = Clock::now();
  Clock::duration lost_{}, together_{}, rest_{};
};

}  // namespace ziggurat
