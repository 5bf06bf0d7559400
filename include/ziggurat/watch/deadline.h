// When a run has to have saved: before its own limit and before the end of the batch system's job.
#pragma once

#include <cstdint>
#include <optional>

#include <ziggurat/watch/phase_times.h>

namespace ziggurat::watch {

double process_started();  // this one, in seconds since 1970

class Deadline {
 public:
  // Times are seconds since 1970. `limit`: so many seconds after `started`; 0: none. `job_end`: as Slurm
  // tells it in SLURM_JOB_END_TIME; null or no number: none.
  Deadline(double started, double limit, const char* job_end);

  bool exists() const { return at_.has_value(); }
  double at() const { return *at_; }

  void took_step(double seconds) { steps_.add(seconds); }
  void took_evaluation(double seconds) { evaluations_.add(seconds); }
  void took_save(double seconds) { saves_.add(seconds); }
  // What a save is taken for until one was seen.
  void guess_save(int64_t bytes);

  // Is it too late to do what comes before the next chance to ask, which is after the next step: perhaps an
  // evaluation and a save now, then the step, and then a last save?
  bool reached(double now, bool evaluates_now, bool saves_now) const;

 private:
  std::optional<double> at_;
  PhaseTimes steps_, evaluations_, saves_;
  double guessed_save_ = 0;
};

}  // namespace ziggurat::watch
