#include <csignal>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/core/exit_codes.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/watchdog.h>

namespace ziggurat::watch {
namespace {

TEST(WatchLimit, OfStepsGoesByTheMedianStep) {
  const WatchConfig config{.long_phases = 1800};
  EXPECT_EQ(limit_of(Phase::step, 0, config), 1800);  // nobody knows how long the first one takes
  EXPECT_EQ(limit_of(Phase::step, 1, config), 60);
  EXPECT_EQ(limit_of(Phase::step, 100, config), 500);
  for (const Phase phase : {Phase::start, Phase::load, Phase::save, Phase::evaluation}) {
    EXPECT_EQ(limit_of(phase, 1, config), 1800) << to_string(phase);
  }
  EXPECT_EQ(limit_of(Phase::end, 1, config), 60);
  EXPECT_EQ(limit_of(Phase::save, 1, {.timeout = 3}), 3);
}

class WatchdogTest : public testing::Test {
 protected:
  WatchdogTest() : folder_(std::filesystem::temp_directory_path() / fmt::format("watched_{}", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~WatchdogTest() override { std::filesystem::remove_all(folder_); }
  std::string log() const {
    std::ifstream file(folder_ + "/flight/rank_0.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string folder_;
};

// In a process of its own, as all that follows.
TEST_F(WatchdogTest, EndsAProcessWithoutProgress) {
  const auto hang = [&] {
    say_last_words("");
    Watchdog watchdog(*make_self_communicator(), 0, {.timeout = 0.5});
    watchdog.use_folder(folder_);
    flight_log().begin_phase(Phase::step, 12);
    while (true) ::pause();
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(exit_codes::hang),
              "rank 0 of 1 .*no progress for [0-9.]+ s .*step 12.*this one, does not get on");
  EXPECT_THAT(log(), testing::HasSubstr("begins step of step 12"));
  EXPECT_THAT(log(), testing::HasSubstr("stack of the thread that does the work"));
}

TEST_F(WatchdogTest, LeavesAProcessThatGetsOn) {
  const auto work = [&] {
    {
      Watchdog watchdog(*make_self_communicator(), 0,
                        {.timeout = 2});  // for a machine that has others to serve
      watchdog.use_folder(folder_);
      for (int i = 0; i < 300; ++i) {
        ::usleep(10'000);
        flight_log().note_progress();
      }
    }
    ::_exit(std::filesystem::exists(folder_ + "/flight") ? 1 : 0);
  };
  EXPECT_EXIT(work(), testing::ExitedWithCode(0), "");
}

TEST_F(WatchdogTest, WritesWhatItDoesOnQuit) {
  const auto work = [&] {
    say_last_words("rank 0");
    Watchdog watchdog(*make_self_communicator(), 0, {});
    watchdog.use_folder(folder_);
    flight_log().begin_phase(Phase::save, 3);
    ::raise(SIGQUIT);
    for (int i = 0; i < 3000 && log().find("SIGQUIT") == std::string::npos; ++i) ::usleep(10'000);
    ::_exit(log().find("begins save of step 3") == std::string::npos ? 1 : 0);
  };
  EXPECT_EXIT(work(), testing::ExitedWithCode(0), "stack of the thread that does the work");
}

TEST_F(WatchdogTest, LastWordsNameSignalAndPlace) {
  const auto crash = [&] {
    say_last_words("rank 1");
    flight_log().begin_phase(Phase::step, 5);
    volatile int* nowhere = nullptr;
    *nowhere = 1;
  };
  EXPECT_EXIT(crash(), testing::KilledBySignal(SIGSEGV),
              "ziggurat: rank 1 in step 5: was ended by signal 11 .SIGSEGV");
  const auto abort_it = [&] {
    say_last_words("");
    std::abort();
  };
  EXPECT_EXIT(abort_it(), testing::KilledBySignal(SIGABRT), "was ended by signal 6 .SIGABRT");
}

TEST_F(WatchdogTest, AnExitThatNobodyExpectsIsTold) {
  const auto leave = [&] {
    say_last_words("rank 1");
    Watchdog watchdog(*make_self_communicator(), 0, {});
    std::exit(3);
  };
  EXPECT_EXIT(leave(), testing::ExitedWithCode(3), "rank 1 in .*: called exit\\(3\\)");
}

}  // namespace
}  // namespace ziggurat::watch
