#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <thread>

#include <unistd.h>

#include <ziggurat/core/signals.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::watch {

namespace {

std::atomic<int> asked = 0;  // the largest so far
std::atomic<bool> untold = false;
std::atomic<int> wake = -1;
bool has_launcher = false;

void ask(StopRequest request) {
  int before = asked.load();
  while (before < static_cast<int>(request) &&
         !asked.compare_exchange_weak(before, static_cast<int>(request))) {
  }
  wake_for_signal();
}

void on_user_signal(int) { ask(StopRequest::user); }

void on_terminate(int signal) {
  static std::atomic<bool> interrupted = false;
  if (signal == SIGINT && interrupted.exchange(true) && !has_launcher) {
    ::signal(SIGINT, SIG_DFL);
    ::raise(SIGINT);
    return;
  }
  untold = true;
  ask(StopRequest::terminate);
}

}  // namespace

const char* to_string(StopRequest request) {
  switch (request) {
    case StopRequest::none:
      return "nothing";
    case StopRequest::walltime:
      return "the time limit";
    case StopRequest::stop_file:
      return "the file STOP";
    case StopRequest::terminate:
      return "SIGTERM or SIGINT";
    case StopRequest::user:
      return "SIGUSR1";
  }
  return "unknown";
}

void listen_to_stop_signals(bool launched) {
  has_launcher = launched;
  handle_signal(SIGUSR1, on_user_signal);
  handle_signal(SIGTERM, on_terminate);
  handle_signal(SIGINT, on_terminate);
}

void leave_it_to_rank_0() {
  ::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(std::chrono::seconds(5));
}

StopRequest stop_asked_by_signal() { return static_cast<StopRequest>(asked.load()); }

bool terminate_to_tell() { return untold.exchange(false); }

void wake_on_signals(int event_descriptor) { wake = event_descriptor; }

void wake_for_signal() {
  const uint64_t one = 1;
  if (const int file = wake; file >= 0 && ::write(file, &one, sizeof one) < 0) return;
}

}  // namespace ziggurat::watch
