#include <memory>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ziggurat/core/flight_log.h>

namespace ziggurat {
namespace {

std::unique_ptr<FlightLog> empty_log() { return std::make_unique<FlightLog>(); }

TEST(FlightLog, TellsThePhaseAndTheCollectiveUnderWay) {
  const auto log = empty_log();
  EXPECT_EQ(log->phase(), Phase::start);
  EXPECT_EQ(log->latest_collective().sequence, 0);
  log->begin_phase(Phase::step, 12);
  EXPECT_FALSE(log->waits());
  const int64_t event = log->begin_collective("all_gather_text", "world", 7, 4096);
  EXPECT_TRUE(log->waits());
  EXPECT_EQ(log->latest_collective().str(), "all_gather_text #7 of 4096 bytes on 'world'");
  EXPECT_EQ(log->latest_collective().ended, 0);
  log->end_collective(event);
  EXPECT_FALSE(log->waits());
  EXPECT_GE(log->latest_collective().ended, log->latest_collective().began);
  EXPECT_EQ(log->phase(), Phase::step);
  EXPECT_EQ(log->step(), 12);
}

TEST(FlightLog, KeepsTheNewestEvents) {
  const auto log = empty_log();
  for (int64_t i = 1; i <= FlightLog::kEvents + 3; ++i) {
    log->end_collective(log->begin_collective("barrier", "dp", i, 0));
  }
  const std::vector<FlightEvent> events = log->events();
  ASSERT_EQ(std::ssize(events), FlightLog::kEvents);
  EXPECT_EQ(events.front().sequence, 4);
  EXPECT_EQ(events.back().sequence, FlightLog::kEvents + 3);
}

TEST(FlightLog, OnlyTheOutermostCollectiveCountsAsWaiting) {
  const auto log = empty_log();
  const int64_t outer = log->begin_collective("split", "world", 1, 0);
  const int64_t inner = log->begin_collective("all_gather_text", "ep", 1, 0);
  log->end_collective(inner);
  EXPECT_TRUE(log->waits());
  EXPECT_EQ(log->waited(), 0);
  log->end_collective(outer);
  const FlightEvent event = log->events().front();
  EXPECT_EQ(event.name, "split");
  EXPECT_GE(log->waited(), event.ended - event.began - 1'000'000);
  EXPECT_GT(log->waited(), 0);
}

TEST(FlightLog, EverythingIsProgress) {
  const auto log = empty_log();
  int64_t last = log->progress();
  const auto moved = [&] { return std::exchange(last, log->progress()) != last; };
  log->begin_phase(Phase::save, 1);
  EXPECT_TRUE(moved());
  const int64_t event = log->begin_collective("barrier", "dp", 1, 0);
  EXPECT_TRUE(moved());
  log->end_collective(event);
  EXPECT_TRUE(moved());
  log->note_progress();
  EXPECT_TRUE(moved());
  log->beat();
  EXPECT_FALSE(moved());
}

TEST(FlightLog, TheFirstLastWordsStand) {
  const auto log = empty_log();
  EXPECT_EQ(log->last_words().text, "");
  log->say_last_words("the cause", 3, true);
  log->say_last_words("what came of it", 1, false);
  const LastWords words = log->last_words();
  EXPECT_EQ(words.text, "the cause");
  EXPECT_EQ(words.exit_code, 3);
  EXPECT_TRUE(words.told);
}

// A process that has died, however, is still read by those that mapped its log.
TEST(FlightLog, OutlivesItsProcessInOthers) {
  flight_log();  // the child's memory is this one's: what it writes is seen here
  ASSERT_GE(flight_log_descriptor(), 0);
  const FlightLog* seen = map_flight_log(::getpid(), flight_log_descriptor());
  ASSERT_NE(seen, nullptr);
  EXPECT_NE(seen, &flight_log());
  const pid_t child = ::fork();
  if (child == 0) {
    flight_log().begin_phase(Phase::save, 4711);
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(seen->phase(), Phase::save);
  EXPECT_EQ(seen->step(), 4711);
  EXPECT_EQ(map_flight_log(::getpid(), -1), nullptr);
  EXPECT_EQ(map_flight_log(child, flight_log_descriptor()), nullptr);
}

}  // namespace
}  // namespace ziggurat
