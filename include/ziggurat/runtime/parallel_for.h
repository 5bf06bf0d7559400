// The only door to threads that compute. Bits never depend on the number of threads: a body gets fixed units
// of work, and a reduction is over fixed blocks in a fixed order.
#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/runtime/dry_run.h>

namespace ziggurat {

int thread_count();     // threads of a parallel_for called from here (1 inside one)
int available_cores();  // cores this process may run on
int thread_index();     // of the caller, in [0, thread_count() of whoever called parallel_for)

// For the calling thread, and those that it starts. Error (config) if `n`, which came by `option`, is more
// than kThreadsPerCore for each available core: threads that share a core wait for each other.
constexpr int kThreadsPerCore = 4;
void set_thread_count(int n, const char* option = "threads");
// The same without a bound, for planning what another machine would do.
void assume_thread_count(int n);
// set_thread_count with the count that a user asks for; 0: the cores there are, shared by `local_ranks`
// processes. Returns a warning, or nothing: all of them together have more threads than the machine has
// cores.
std::string choose_thread_count(int asked, const char* option, int local_ranks = 1);

// While it lives, what the calling thread calls runs on that thread alone. For a unit of work that calls
// kernels and libraries: a parallel_for of one unit opens no parallel region, so they would else use all
// threads, and their bits would depend on how many there are.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int outer_;
};

// While it lives, the bodies below that the calling thread spreads are not shares of OpenMP's threads, which
// would all have to arrive before a loop ends: idle threads of a pool take them piece by piece, and a loop
// ends when its last piece is done. So a thread that the system does not run, because another process is,
// holds nobody up. For loops of microseconds, as in decoding; not around products on the matrix library's own
// threads, which are OpenMP's and would fight with the pool's for the cores.
class InPieces {
 public:
  InPieces() : outer_(on_) { on_ = true; }
  ~InPieces() { on_ = outer_; }
  InPieces(const InPieces&) = delete;
  InPieces& operator=(const InPieces&) = delete;
  static bool on() { return on_; }

 private:
  inline static thread_local bool on_ = false;
  bool outer_;
};

// What InPieces does. `run` is called for pieces [begin, end) of [0, n).
using RunPiece = void (*)(const void* body, int64_t begin, int64_t end);
void run_in_pieces(int64_t n, RunPiece run, const void* body);
void run_on_every_thread(RunPiece run, const void* body);

// body(i) for i in [0, n), in any order on any thread. `schedule(dynamic)`: for units of unequal size.
template <class Body>
void parallel_for(int64_t n, const Body& body) {
  if (DryRun::on()) return;
  if (n <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  if (InPieces::on()) {
    const RunPiece run = [](const void* all, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) (*static_cast<const Body*>(all))(i);
    };
    return run_in_pieces(n, run, &body);
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) {
    body(i);
  }
}

// body() once on every thread that a parallel_for uses.
template <class Body>
void on_every_thread(const Body& body) {
  if (DryRun::on()) return;
  if (InPieces::on()) {
    return run_on_every_thread([](const void* all, int64_t, int64_t) { (*static_cast<const Body*>(all))(); },
                               &body);
  }
#pragma omp parallel
  body();
}

// body(begin, end) over [0, n) cut into blocks of `block` elements: for cheap per-element work.
// The cut depends on n and block only.
template <class Body>
void parallel_for_blocks(int64_t n, int64_t block, const Body& body) {
  if (DryRun::on()) return;
  const int64_t blocks = (n + block - 1) / block;
  if (blocks <= 1) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
  const auto run_block = [&](int64_t b) {
    const int64_t begin = b * block, end = begin + block < n ? begin + block : n;
    body(begin, end);
  };
  if (InPieces::on()) return parallel_for(blocks, run_block);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b) run_block(b);
}

}  // namespace ziggurat
