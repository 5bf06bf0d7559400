// Checkpoints that don't make the training wait for the disk.
//
// start() copies what a rank holds and returns; a thread of each rank writes its file from the copy, without
// any message. At every step boundary ranks tell each other how far they are (lag(), a maximum that may ride
// on another all-reduce); what all have written, rank 0's thread commits, in the order of the saves.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat {

// How a save ended. The same on every rank.
struct SaveOutcome {
  int64_t step = 0;
  std::string error;         // empty: it is committed
  int64_t bytes = 0;         // of all ranks
  double write_seconds = 0;  // of the slowest rank, its fsync included
  double stall_seconds = 0;  // that this rank's training waited for it
};

class Saver {
 public:
  static constexpr size_t kMostPending = 2;  // copies in memory; a third save waits

  // `comm` outlives it. Not `in_background`: start() returns when the checkpoint is committed, and copies
  // nothing.
  Saver(std::string dir, Communicator& comm, bool in_background);
  ~Saver();  // gives up what is not committed; finish() waits for it

  // Collective, as save_checkpoint(): but work that writes the slices need only be queued on no stream that
  // is still running, and they may change as soon as it returns. What fails, now or later, is an outcome.
  // `stall`: since the training stopped for this. Returns what ended since the last call of these.
  std::vector<SaveOutcome> start(const CheckpointInfo& info, std::span<const TensorSlice> slices,
                                 const Timer& stall = {});

  // Saves that this rank has not written, and that rank 0 has not committed.
  struct Lag {
    double unwritten = 0, uncommitted = 0;
  };
  Lag lag() const;
  // Collective; `worst`: the maximum of each over all ranks. Waits for no disk.
  std::vector<SaveOutcome> advance(const Lag& worst);
  // Collective. Waits until all have ended.
  std::vector<SaveOutcome> finish();

  size_t pending() const { return pending_.size(); }  // the same on every rank

 private:
  struct Save;

  void copy(Save& save, std::span<const TensorSlice> slices);
  void write(Save& save);
  void gather(Save& save);
  void commit(Save& save);
  void end_oldest();
  void wait_for_oldest();
  void wait_until(const bool& done);
  std::vector<SaveOutcome> ended();
  void work();  // of the thread

  std::string dir_;
  Communicator& comm_;
  bool in_background_;
  std::deque<std::unique_ptr<Save>> pending_;          // oldest first
  std::vector<SaveOutcome> ended_;                     // not told yet
  std::vector<std::unique_ptr<HostMemory>> memories_;  // of copies that nobody writes any more

  // What the thread is to do, and whether it has.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  int64_t pieces_ = 0;  // written so far: the disk works
  std::thread thread_;
};

}  // namespace ziggurat
