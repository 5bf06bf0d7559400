// The only door to OpenMP. Bits never depend on the number of threads: a body gets fixed units of work, and a
// reduction is over fixed blocks in a fixed order.
#pragma once

#include <cstdint>

namespace ziggurat {

int thread_count();            // threads of a parallel_for called from here (1 inside one)
void set_thread_count(int n);  // for this process
int available_cores();         // cores this process may run on

// Inside its scope this thread's parallel loops, also those of libraries, run on it alone.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// body(i) for i in [0, n), in any order on any thread. `schedule(dynamic)`: for units of unequal size.
template <class Body>
void parallel_for(int64_t n, const Body& body) {
  if (n <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) {
    body(i);
  }
}

// body(begin, end) over [0, n) cut into blocks of `block` elements: for cheap per-element work.
// The cut depends on n and block only.
template <class Body>
void parallel_for_blocks(int64_t n, int64_t block, const Body& body) {
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
