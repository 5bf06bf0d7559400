// What `ziggurat doctor` sees of a machine, and what it makes of that. Seeing and judging are apart: every
// judgement can be had for a machine that one does not have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/runtime/gpus.h>

namespace ziggurat::apps {

struct FolderFacts {
  std::string path;
  std::string problem;  // what failed, with its reason; empty: files can be made, renamed, synced and locked
  double sync_seconds = 0;  // of one fsync of a small file
  double clock_ahead = 0;   // seconds that the file system's clock is ahead of this machine's
  int64_t free_bytes = 0;
};

struct RankFacts {
  int ranks = 1, ranks_here = 1;  // of the job; of those, on this node
  double small_seconds = 0;       // of an all-reduce of one number
  double bytes_per_second = 0;    // of a large broadcast
};

struct MachineFacts {
  std::string cpu;
  int level = 1, built_level = 1;       // of x86-64: this CPU's, and the one that the build uses
  int online_cores = 1, our_cores = 1;  // of the machine; that this process may run on
  int threads_per_core = 1;             // 2: two of the above share one core's arithmetic
  double quota_cores = 0;               // that the cgroup grants; 0: no limit
  std::string governor;                 // of the clock of core 0; empty: not known
  std::string huge_pages;               // always, madvise, never; empty: not known
  int64_t memory_bytes = 0, available_bytes = 0;
  int64_t memory_limit = 0;             // of the cgroup; 0: none
  int64_t address_limit = 0;            // ulimit -v; 0: none
  int64_t open_files = 0;               // ulimit -n; 0: no limit
  int64_t file_limit = 0;               // ulimit -f; 0: none
  int64_t shared_bytes = -1;            // free in /dev/shm; -1: it is not there
  std::string clock_source;             // tsc, hpet, ...; empty: not known
  bool gpu = false, gpu_build = false;  // a driver is loaded; this binary has the CUDA rooms
  Gpus gpus;                            // where it has
  std::string mpi;                      // the library
  RankFacts ranks;
  FolderFacts folder;
};

enum class Verdict { good, slow, broken };  // slow: works, but not as it could

struct Finding {
  Verdict verdict;
  std::string subject, found;
  std::string cure;  // what to change; empty if it is good
};

std::vector<Finding> diagnose(const MachineFacts& machine);

// Prints the findings; Error (device) if anything is broken.
void doctor(const std::string& folder);

}  // namespace ziggurat::apps
