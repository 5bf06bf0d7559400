#include <csignal>

#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::watch {
namespace {

// In a process of its own: handlers and requests stay.
template <class Body>
void in_child(const Body& body) {
  EXPECT_EXIT(
      {
        body();
        ::_exit(0);
      },
      testing::ExitedWithCode(0), "");
}

#define EXPECT_REQUEST(request) \
  if (stop_asked_by_signal() != StopRequest::request) ::_exit(__LINE__ % 200 + 1)

TEST(StopRequests, SignalsAreKeptAndTheLargestStands) {
  in_child([] {
    EXPECT_REQUEST(none);
    listen_to_stop_signals(true);
    ::raise(SIGTERM);
    EXPECT_REQUEST(terminate);
    ::raise(SIGUSR1);
    EXPECT_REQUEST(user);
    ::raise(SIGUSR1);
    ::raise(SIGINT);
    ::raise(SIGINT);
    ::raise(SIGTERM);
    EXPECT_REQUEST(user);
    if (!terminate_to_tell() || terminate_to_tell()) ::_exit(99);
  });
}

TEST(StopRequests, ASecondInterruptEndsAProcessWithoutALauncher) {
  EXPECT_EXIT(
      {
        listen_to_stop_signals(false);
        ::raise(SIGINT);
        EXPECT_REQUEST(terminate);
        ::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(StopRequests, SignalsWakeWhoWaits) {
  in_child([] {
    int pipes[2];
    if (::pipe(pipes) != 0) ::_exit(98);
    listen_to_stop_signals(true);
    wake_on_signals(pipes[1]);
    ::raise(SIGUSR1);
    char byte = 0;
    if (::read(pipes[0], &byte, 1) != 1) ::_exit(97);
  });
}

}  // namespace
}  // namespace ziggurat::watch
