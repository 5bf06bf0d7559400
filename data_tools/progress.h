// One line on stderr that tells how far a long job is: MB/s, tokens/s, ETA.
#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/core/timer.h>

namespace ziggurat {

class Progress {
 public:
  // total may be 0: then no ETA. `unit`: what is counted, "" for bytes, shown as MB. On a terminal the line
  // is redrawn; else it is printed every 10 s.
  Progress(std::string what, int64_t total, std::string unit = "");
  void update(int64_t done, int64_t tokens = 0);  // so far; prints at most twice a second
  void finish(int64_t done, int64_t tokens = 0);  // the last line stays

 private:
  std::string amount(double done) const;
  void print(int64_t done, int64_t tokens, const char* end);

  std::string what_, unit_;
  int64_t total_;
  bool terminal_;
  Timer timer_;
  double last_print_ = 0;
};

}  // namespace ziggurat
