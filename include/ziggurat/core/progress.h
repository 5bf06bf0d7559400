// How far a long job is, how fast, and how long it still takes, on stderr:
//   tokenize 43% | 1.3GB of 3GB | 56MB/s | 12.3M tokens/s | ETA 31s
// On a terminal the line is drawn over and over; in a file a line is added every ten seconds. Only the rank
// that speaks tells it, and nobody with --quiet.
#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/core/timer.h>

namespace ziggurat {

class Progress {
 public:
  // `unit`: what is counted ("merges"), "" for bytes. `total` may be 0: not known, then no ETA.
  explicit Progress(std::string job, std::string unit = "", int64_t total = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // a job that ended early leaves no half line

  void update(int64_t done, int64_t tokens = 0);  // so far
  void finish(int64_t done, int64_t tokens = 0);  // the last line stays; the time it took instead of an ETA

  // As libraries call it: (done, total) until both are the same.
  void operator()(int64_t done, int64_t total);

  std::string line(int64_t done, int64_t tokens, double seconds, bool finished) const;

 private:
  std::string amount(double n) const;

  std::string job_, unit_;
  int64_t total_;
  bool tells_, terminal_;
  Timer timer_;
  double last_ = 0;
};

}  // namespace ziggurat
