// The only door to OpenMP. Bits never depend on the number of threads: a body gets fixed units of work, and a
// reduction is over fixed blocks in a fixed order.
#pragma once

#include <cstdint>

namespace ziggurat {

int thread_count();            // threads of a parallel_for called from here (1 inside one)
void set_thread_count(int n);  // for this process
int available_cores();         // cores this process may run on
int thread_index();            // of the caller, in [0, thread_count() of whoever called parallel_for)

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

// While it lives, the bodies below are not called on this thread, and neither is the matrix library: kernels
// take the memory that they need and leave without having touched any. So planning is running (Device::meta).
class DryRun {
 public:
  DryRun() : outer_(on_) { on_ = true; }
  ~DryRun() { on_ = outer_; }
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;
  static bool on() { return on_; }

 private:
  inline static thread_local bool on_ = false;
  bool outer_;
};

// body(i) for i in [0, n), in any order on any thread. `schedule(dynamic)`: for units of unequal size.
template <class Body>
void parallel_for(int64_t n, const Body& body) {
  if (DryRun::on()) return;
  if (n <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
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
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * block, end = begin + block < n ? begin + block : n;
    body(begin, end);
  }
}

}  // namespace ziggurat
