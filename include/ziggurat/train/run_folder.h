// What a run owns on the disk: a folder that no other job writes in while it lives.
//
//   <output>/run.lock       who writes here now
//   <output>/config.yaml    of the latest start
//   <output>/metrics.jsonl  one record a step, and a marker wherever the run began or went on
//   <output>/events.out.tfevents.*  the same numbers for TensorBoard, a file for each start
//   <output>/rank_N.log
//   <output>/tokenizer/     of the text (run_tokenizer.h)
//   <output>/checkpoints/
//   <output>/flight/      what ranks did last (watch/watchdog.h)
//   <output>/STOP         made by a person: the run saves and ends, and none is started until it is removed
//   <output>/earlier_N/     all of this of a run that was here before another began anew
//
// Only rank 0 touches the disk here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/io/folder_lock.h>
#include <ziggurat/train/metrics.h>
#include <ziggurat/train/run_records.h>

namespace ziggurat::train {

class RunFolder {
 public:
  // Collective: one outcome for all ranks. Makes the folder and takes its lock, before anything else is
  // written there. Throws Error(config): it cannot be made (key, path, errno), or another job is alive in it.
  RunFolder(const std::string& path, Communicator& world);
  ~RunFolder();  // a start that was refused leaves the disk as it was

  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }

  struct Start {
    int64_t step = 0;
    std::string resumed_from;  // empty: a run begins, and an earlier one's files move to earlier_N
    std::string config;        // text of config.yaml
    std::string lineage;       // id of the run
  };
  // Collective, once the start was accepted; nothing is changed before.
  void begin(const Start& start);

  // Collective. Does metrics.jsonl say that the run came to its end at this step?
  bool ended_at(int64_t step) const;

  // Of rank 0: did somebody make the file STOP?
  bool stop_asked() const;

  void write(const std::string& json) { records_.write(json); }
  void sync() { records_.sync(); }

  // Once a step, `step` of them being done. True if the folder, or its lock, had been removed and is made
  // again: what was in it is gone, training goes on. Throws Error(config) if another job took it meanwhile.
  bool keep(int64_t step);

 private:
  void make();
  void take_lock();
  std::string stop_file() const { return path_ + "/STOP"; }
  void set_aside_earlier_run() const;
  void write_config() const;
  void open_metrics(int64_t step);

  std::string path_;
  Communicator& world_;
  std::vector<std::string> made_;  // folders that were not there before, outermost first
  std::optional<FolderLock> lock_;
  std::optional<Start> start_;
  RunRecords records_;
  bool warned_ = false;
};

}  // namespace ziggurat::train
