// Machines that one does not have: each fault is found, alone, and named with its cure.
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/doctor.h"

namespace ziggurat::apps {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

MachineFacts good_machine() {
  MachineFacts m;
  m.cpu = "a CPU";
  m.level = m.built_level = 4;
  m.online_cores = m.our_cores = 8;
  m.governor = "performance";
  m.huge_pages = "madvise";
  m.memory_bytes = 64 * kGiB, m.available_bytes = 32 * kGiB;
  m.open_files = 1024;
  m.shared_bytes = 8 * kGiB;
  m.clock_source = "tsc";
  m.mpi = "an MPI";
  m.ranks = {.ranks = 2, .ranks_here = 2, .small_seconds = 2e-6, .bytes_per_second = 5e9};
  m.folder = {.path = ".", .problem = "", .sync_seconds = 0.01, .clock_ahead = 0, .free_bytes = 100 * kGiB};
  return m;
}

TEST(Doctor, AGoodMachineHasNothingToChange) {
  for (const Finding& finding : diagnose(good_machine())) {
    EXPECT_EQ(finding.verdict, Verdict::good) << finding.subject << ": " << finding.found;
    EXPECT_EQ(finding.cure, "") << finding.subject;
  }
}

TEST(Doctor, GpusAreCountedWithWhatRunsThere) {
  const auto found_of = [](const MachineFacts& machine) {
    for (const Finding& finding : diagnose(machine)) {
      if (finding.subject == "GPU") {
        EXPECT_EQ(finding.verdict, Verdict::good);
        return finding.found;
      }
    }
    return std::string();
  };
  MachineFacts machine = good_machine();
  EXPECT_EQ(found_of(machine), "none");
  machine.gpu_build = true;
  machine.gpus.problem = "no driver";
  EXPECT_EQ(found_of(machine), "none, and no driver; device=cpu computes here");
  machine.gpus = {"13.0", "sm_80 sm_90a", "", "", {{"GPU A", 9, 0, 140 * kGiB}, {"GPU B", 8, 6, 48 * kGiB}}};
  EXPECT_EQ(found_of(machine),
            "GPU A, 140.0 GiB, compute capability 9.0; GPU B, 48.0 GiB, compute capability 8.6; "
            "driver for CUDA 13.0; built for sm_80 sm_90a");
}

struct Fault {
  const char* subject;
  Verdict verdict;
  const char* cure;  // part of it
  std::function<void(MachineFacts&)> make;
};

TEST(Doctor, EachFaultIsFoundAlone) {
  const Fault faults[] = {
      {"CPU", Verdict::slow, "ZIGGURAT_MARCH=native", [](auto& m) { m.built_level = 3; }},
      {"cores", Verdict::slow, "--threads 1 ", [](auto& m) { m.quota_cores = 2.5; }},
      {"cores", Verdict::slow, "--bind-to none", [](auto& m) { m.our_cores = 1; }},
      {"cores", Verdict::slow, "start fewer", [](auto& m) { m.ranks.ranks = m.ranks.ranks_here = 9; }},
      {"clock rate", Verdict::slow, "performance", [](auto& m) { m.governor = "powersave"; }},
      {"huge pages", Verdict::slow, "transparent_hugepage", [](auto& m) { m.huge_pages = "never"; }},
      {"memory", Verdict::broken, "ulimit -v", [](auto& m) { m.address_limit = kGiB / 2; }},
      {"memory", Verdict::slow, "ziggurat plan", [](auto& m) { m.available_bytes = kGiB / 2; }},
      {"files", Verdict::slow, "ulimit -n", [](auto& m) { m.open_files = 256; }},
      {"files", Verdict::slow, "ulimit -f", [](auto& m) { m.file_limit = kGiB; }},
      {"shared memory", Verdict::broken, "mount", [](auto& m) { m.shared_bytes = -1; }},
      {"shared memory", Verdict::broken, "--shm-size", [](auto& m) { m.shared_bytes = kGiB / 16; }},
      {"clock", Verdict::slow, "tsc", [](auto& m) { m.clock_source = "hpet"; }},
      {"GPU", Verdict::slow, "docker --gpus",
       [](auto& m) {
         m.gpu = m.gpu_build = true;
         m.gpus = {"13.0", "sm_90a", "no GPU is there", "docker --gpus all", {}};
       }},
      {"GPU", Verdict::slow, "-DCMAKE_CUDA_ARCHITECTURES=80-real",
       [](auto& m) {
         m.gpu = m.gpu_build = true;
         m.gpus = {
             "13.0", "sm_90a", "", "", {{"a new one", 9, 0, 80 * kGiB}, {"an old one", 8, 0, 40 * kGiB}}};
       }},
      {"MPI", Verdict::slow, "share cores", [](auto& m) { m.ranks.small_seconds = 1e-3; }},
      {"MPI", Verdict::slow, "copy of memory", [](auto& m) { m.ranks.bytes_per_second = 1e8; }},
      {"MPI", Verdict::slow, "network",
       [](auto& m) { m.ranks.ranks_here = 1, m.ranks.bytes_per_second = 1e8; }},
      {"folder", Verdict::broken, "another file system", [](auto& m) { m.folder.problem = "rename fails"; }},
      {"folder", Verdict::slow, "NTP", [](auto& m) { m.folder.clock_ahead = -40; }},
      {"folder", Verdict::slow, "save less often", [](auto& m) { m.folder.sync_seconds = 3; }},
      {"folder", Verdict::slow, "make room", [](auto& m) { m.folder.free_bytes = kGiB / 2; }},
  };
  for (const Fault& fault : faults) {
    MachineFacts machine = good_machine();
    fault.make(machine);
    for (const Finding& finding : diagnose(machine)) {
      if (finding.subject == fault.subject) {
        EXPECT_EQ(finding.verdict, fault.verdict) << fault.subject << ": " << fault.cure;
        EXPECT_THAT(finding.cure, testing::HasSubstr(fault.cure));
      } else {
        EXPECT_EQ(finding.verdict, Verdict::good) << finding.subject << " beside " << fault.cure;
      }
    }
  }
}

}  // namespace
}  // namespace ziggurat::apps
