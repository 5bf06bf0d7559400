// How far a long job is, how fast, and how long it still takes: a line of the log every few seconds.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>

namespace ziggurat::apps {

class ProgressLines {
 public:
  explicit ProgressLines(std::string job, std::string (*amount)(double) = format_count)
      : job_(std::move(job)), amount_(amount) {}
  void operator()(int64_t done, int64_t total) {
    if (done < total && since_last_.seconds() < 10) return;
    since_last_.restart();
    const double seconds = since_start_.seconds(), speed = static_cast<double>(done) / seconds;
    info("{} {:.0f}% | {}/s | ETA {}", job_, 100.0 * static_cast<double>(done) / static_cast<double>(total),
         amount_(speed), format_duration(static_cast<double>(total - done) / speed));
  }

 private:
  std::string job_;
  std::string (*amount_)(double);
  Timer since_start_, since_last_;
};

}  // namespace ziggurat::apps
