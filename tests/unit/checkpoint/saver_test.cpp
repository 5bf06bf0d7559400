// Saves in the background: what they hold, their order, and every way in which they may end.
#include <atomic>
#include <csignal>
#include <future>

#include <gmock/gmock.h>
#include <sys/wait.h>

#include "checkpoint_fixture.h"
#include "tests/support/failing_calls.h"
#include <ziggurat/checkpoint/saver.h>

namespace ziggurat::test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// As at a step boundary.
std::vector<SaveOutcome> at_boundary(Saver& saver, Communicator& comm) {
  const Saver::Lag lag = saver.lag();
  double worst[] = {lag.unwritten, lag.uncommitted};
  Stream stream;
  comm.all_reduce(Tensor(worst, DType::f64, {2}), ReduceOp::max, ReduceOrder::any, stream).wait();
  return saver.advance({worst[0], worst[1]});
}

// Holds back writes of a step, until it is let go.
class Gate {
 public:
  explicit Gate(const std::string& in_path)
      : watched_([this, in_path](std::string_view call, const fs::path& path) {
          if (call == "write" && path.string().find(in_path) != std::string::npos) open_.wait(false);
          return WatchedCalls::Fault{};
        }) {}
  ~Gate() { open(); }
  void open() {
    open_ = true;
    open_.notify_all();
  }

 private:
  std::atomic<bool> open_ = false;
  WatchedCalls watched_;
};

TEST_F(CheckpointTest, WhatChangesAfterStartIsNotSaved) {
  for (const bool background : {true, false}) {
    run_on_threads(2, [&](Communicator& comm) {
      Saver saver(dir_, comm, background);
      RankSlices mine(comm.rank(), 2);
      for (const int64_t step : {1, 2, 3, 4, 5}) {
        mine.fill(step);
        saver.start(info(step), mine.slices);
        mine.fill(step + 100);
        for (const SaveOutcome& saved : at_boundary(saver, comm)) EXPECT_EQ(saved.error, "");
      }
      for (const SaveOutcome& saved : saver.finish()) {
        EXPECT_EQ(saved.error, "");
        EXPECT_GT(saved.write_seconds, 0);
      }
      EXPECT_EQ(saver.pending(), 0u);
    });
    for (const int64_t step : {1, 2, 3, 4, 5}) EXPECT_TRUE(loads(step_dir(step), step, 3)) << step;
    fs::remove_all(dir_);
  }
}

TEST_F(CheckpointTest, TwoSavesMayBeUnderWayAndEndInTheirOrder) {
  Gate gate(".step_00000001.tmp");
  run_on_threads(2, [&](Communicator& comm) {
    Saver saver(dir_, comm, true);
    RankSlices mine(comm.rank(), 2);
    const auto start = [&](int64_t step) {
      mine.fill(step);
      return saver.start(info(step), mine.slices);
    };
    EXPECT_THAT(start(1), IsEmpty());
    EXPECT_THAT(start(2), IsEmpty());
    EXPECT_THAT(at_boundary(saver, comm), IsEmpty()) << "none is written yet";
    EXPECT_EQ(saver.pending(), 2u);
    std::thread opener([&] { gate.open(); });
    std::vector<SaveOutcome> all = start(3);
    opener.join();
    EXPECT_EQ(all.size(), 1u) << "the third returns only when the first is on the disk";
    EXPECT_EQ(saver.pending(), 2u);
    for (const SaveOutcome& rest : saver.finish()) all.push_back(rest);
    ASSERT_EQ(all.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(all[i].step, static_cast<int64_t>(i) + 1);
      EXPECT_EQ(all[i].error, "");
      EXPECT_GT(all[i].bytes, 0);
    }
  });
  for (const int64_t step : {1, 2, 3}) EXPECT_TRUE(loads(step_dir(step), step, 1)) << step;
}

TEST_F(CheckpointTest, NothingIsCommittedBeforeEveryRankHasWritten) {
  Gate gate("rank_00001");
  run_on_threads(2, [&](Communicator& comm) {
    Saver saver(dir_, comm, true);
    RankSlices mine(comm.rank(), 2);
    mine.fill(7);
    saver.start(info(7), mine.slices);
    while (comm.rank() == 0 && saver.lag().unwritten > 0) std::this_thread::yield();
    EXPECT_THAT(at_boundary(saver, comm), IsEmpty());
    EXPECT_FALSE(latest_checkpoint(dir_).has_value());
    comm.barrier();
    gate.open();
    while (saver.pending() > 0) at_boundary(saver, comm);
  });
  EXPECT_TRUE(loads(dir_, 7, 1));
}

// R3 of a save: every call that writes fails, once or from then on, by every error.
TEST_F(CheckpointTest, ASaveThatFailsIsToldAndLeavesTheOldOnes) {
  save(10, 2);
  int failures = 0;
  for (const char* call : kWritingCalls) {
    for (const int error : {EIO, ENOSPC, EDQUOT}) {
      for (const bool for_ever : {false, true}) {
        for (int nth = 1;; ++nth) {
          std::vector<SaveOutcome> told;
          bool came_to_it = false;
          {
            const FailingCalls failing(call, nth, error, for_ever);
            run_on_threads(2, [&](Communicator& comm) {
              Saver saver(dir_, comm, true);
              RankSlices mine(comm.rank(), 2);
              mine.fill(20);
              std::vector<SaveOutcome> outcomes = saver.start(info(20), mine.slices);
              for (const SaveOutcome& later : saver.finish()) outcomes.push_back(later);
              if (comm.rank() == 1) told = outcomes;
            });
            came_to_it = failing.came_to_it();
          }
          ASSERT_EQ(told.size(), 1u);
          if (!came_to_it) {
            EXPECT_EQ(told[0].error, "");
            EXPECT_TRUE(loads(dir_, 20, 1));
            fs::remove_all(step_dir(20));
            break;
          }
          ++failures;
          EXPECT_THAT(told[0].error, AllOf(HasSubstr(dir_), HasSubstr(fmt::format("errno {}", error))))
              << call << " " << nth;
          EXPECT_THAT(entries(), ElementsAre("step_00000010")) << call << " " << nth << " " << for_ever;
        }
      }
    }
  }
  EXPECT_TRUE(loads(dir_, 10, 3));
  EXPECT_GE(failures, 6 * 3 * 2);
}

// R2 and R7: a kill at every call of a save and of the removal of an older one leaves the old or the new.
TEST_F(CheckpointTest, AKillAtEveryCallLeavesTheOldOrTheNew) {
  int kills = 0;
  for (int nth = 1;; ++nth) {
    fs::remove_all(dir_);
    save(10, 1);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::atomic<int> calls = 0;
      const WatchedCalls watched([&](std::string_view, const fs::path&) {
        if (++calls == nth) ::kill(::getpid(), SIGKILL);
        return WatchedCalls::Fault{};
      });
      const auto comm = make_self_communicator();
      Saver saver(dir_, *comm, true);
      RankSlices mine(0, 1);
      mine.fill(20);
      saver.start(info(20, 1), mine.slices);
      saver.finish();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    const auto comm = make_self_communicator();
    const NewestValid found = open_newest_valid(dir_, *comm);
    ASSERT_TRUE(found.reader.has_value()) << nth;
    EXPECT_THAT(found.skipped, IsEmpty()) << nth;
    const int64_t step = found.reader->manifest().step;
    EXPECT_THAT(step, AnyOf(10, 20));
    EXPECT_TRUE(loads(dir_, step, 2)) << nth;
    if (WIFEXITED(status)) {
      EXPECT_EQ(step, 20);
      break;
    }
    ++kills;
  }
  EXPECT_GT(kills, 12);
}

TEST_F(CheckpointTest, EveryFewStepsOneIsKeptForEver) {
  run_on_threads(1, [&](Communicator& comm) {
    Saver saver(dir_, comm, true);
    Lineage lineage{"one", {}};
    RankSlices mine(0, 1);
    for (int64_t step = 1; step <= 9; ++step) {
      mine.fill(step);
      CheckpointInfo i = info(step, 2);
      i.keep_every = 3;
      i.lineage = &lineage;
      saver.start(i, mine.slices);
      saver.finish();
    }
  });
  EXPECT_THAT(entries(), ElementsAre("step_00000003", "step_00000006", "step_00000008", "step_00000009"));
}

TEST_F(CheckpointTest, ASaverThatIsGivenUpCommitsNothing) {
  {
    Gate gate("rank_00000");
    const auto comm = make_self_communicator();
    Saver saver(dir_, *comm, true);
    RankSlices mine(0, 1);
    mine.fill(1);
    saver.start(info(1), mine.slices);
    gate.open();
  }
  EXPECT_FALSE(latest_checkpoint(dir_).has_value());
  remove_stale_temporaries(dir_);
  EXPECT_THAT(entries(), IsEmpty());
}

}  // namespace
}  // namespace ziggurat::test
