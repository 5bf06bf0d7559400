#include <exception>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/log.h>

namespace ziggurat {

void Work::wait() {
  // Cleared first: a failed exchange is reported once.
  const auto wait_now = std::exchange(wait_, nullptr);
  if (!wait_now) return;
  struct Waiting {
    Waiting() { flight_log().begin_wait(); }
    ~Waiting() { flight_log().end_wait(); }
  } const waiting;
  wait_now();
}

void Work::wait_without_throwing() noexcept {
  try {
    wait();
  } catch (const std::exception& error) {
    log_fatal(error.what());
  }
}

Work& Work::operator=(Work&& other) noexcept {
  if (this != &other) {
    wait_without_throwing();
    wait_ = std::exchange(other.wait_, nullptr);
  }
  return *this;
}

Work::~Work() { wait_without_throwing(); }

}  // namespace ziggurat
