// A collective as this process's flight log has it, from the moment this rank enters it to its end.
#pragma once

#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/timer.h>

namespace ziggurat::comm {

class Noted {
 public:
  explicit Noted(const Communicator& group) : Noted(group, group.last_collective().name) {}
  Noted(const Communicator& group, const char* name)
      : event_(flight_log().begin_collective(name, group.name(), group.last_collective().sequence,
                                             group.last_collective().bytes)) {}
  Noted(const Communicator& group, CollectiveTime& time) : Noted(group) {
    time_ = &time;
    ++time.calls;
    time.bytes += group.last_collective().bytes;
  }
  ~Noted() {
    flight_log().end_collective(event_);
    if (time_ != nullptr) time_->exposed += timer_.seconds();
  }
  Noted(const Noted&) = delete;
  Noted& operator=(const Noted&) = delete;

 private:
  int64_t event_;
  CollectiveTime* time_ = nullptr;
  Timer timer_;
};

}  // namespace ziggurat::comm
