// One line on stderr that tells how far a long job is: MB/s, tokens/s, ETA.
#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/core/timer.h>

namespace ziggurat {

class Progress {
 public:
  // total_bytes may be 0: then no ETA. On a terminal the line is redrawn; else it is printed every 10 s.
  Progress(std::string what, int64_t total_bytes);
  void update(int64_t bytes, int64_t tokens);  // so far; prints at most twice a second
  void finish(int64_t bytes, int64_t tokens);  // the last line stays

 private:
  void print(int64_t bytes, int64_t tokens, const char* end);

  std::string what_;
  int64_t total_bytes_;
  bool terminal_;
  Timer timer_;
  double last_print_ = 0;
};

}  // namespace ziggurat
