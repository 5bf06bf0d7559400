// From what was seen of a machine to what is wrong with it.
#include <algorithm>

#include <fmt/format.h>

#include "apps/doctor.h"

namespace ziggurat::apps {

namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

double gib(int64_t bytes) { return static_cast<double>(bytes) / kGiB; }

Finding cpu(const MachineFacts& m) {
  const std::string found = fmt::format("{}, x86-64-v{}; built for v{}", m.cpu, m.level, m.built_level);
  if (m.level > m.built_level) {
    return {
        Verdict::slow, "CPU", found,
        "products would be faster with this CPU's own instructions: build with -DZIGGURAT_MARCH=native here"};
  }
  return {Verdict::good, "CPU", found, ""};
}

Finding cores(const MachineFacts& m) {
  const std::string found =
      fmt::format("{} of {} for this process{}{}", m.our_cores, m.online_cores,
                  m.quota_cores > 0 ? fmt::format(", {:.1f} granted", m.quota_cores) : "",
                  m.threads_per_core > 1 ? ", two share one's arithmetic" : "");
  if (m.quota_cores > 0 && m.quota_cores < m.our_cores) {
    return {Verdict::slow, "cores", found,
            fmt::format(
                "the container is halted when it uses more than {:.1f} cores: give --threads {} a rank, or a "
                "larger quota (docker --cpus)",
                m.quota_cores, std::max(1, static_cast<int>(m.quota_cores) / m.ranks.ranks_here))};
  }
  if (m.our_cores == 1 && m.online_cores > 1) {
    return {Verdict::slow, "cores", found,
            "all threads of a rank share one core: mpirun --bind-to none, or srun --cpus-per-task"};
  }
  if (m.ranks.ranks_here > m.online_cores) {
    return {Verdict::slow, "cores", found,
            fmt::format("{} ranks share {} cores: start fewer", m.ranks.ranks_here, m.online_cores)};
  }
  return {Verdict::good, "cores", found, ""};
}

Finding clock_rate(const MachineFacts& m) {
  const std::string found = m.governor.empty() ? "left to the host" : m.governor;
  if (m.governor == "powersave" || m.governor == "conservative") {
    return {Verdict::slow, "clock rate", found, "as root: cpupower frequency-set -g performance"};
  }
  return {Verdict::good, "clock rate", found, ""};
}

Finding huge_pages(const MachineFacts& m) {
  if (m.huge_pages == "never") {
    return {Verdict::slow, "huge pages", m.huge_pages,
            "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
  }
  return {Verdict::good, "huge pages", m.huge_pages.empty() ? "not known" : m.huge_pages, ""};
}

Finding memory(const MachineFacts& m) {
  std::string found = fmt::format("{:.1f} GiB, {:.1f} free", gib(m.memory_bytes), gib(m.available_bytes));
  if (m.memory_limit > 0) found += fmt::format(", {:.1f} granted", gib(m.memory_limit));
  if (m.address_limit > 0) found += fmt::format(", addresses of {:.1f} (ulimit -v)", gib(m.address_limit));
  constexpr int64_t kLeast = int64_t{1} << 30;
  if (m.address_limit > 0 && m.address_limit < kLeast) {
    return {Verdict::broken, "memory", found,
            "libraries alone take most of that: raise ulimit -v, h_vmem or --mem"};
  }
  if (m.available_bytes < kLeast) {
    return {Verdict::slow, "memory", found,
            "a rank of a small model needs about 1 GiB: end other programs; `ziggurat plan` tells what a "
            "config needs"};
  }
  return {Verdict::good, "memory", found, ""};
}

Finding files(const MachineFacts& m) {
  std::string found =
      m.open_files > 0 ? fmt::format("{} open at once", m.open_files) : "any number open at once";
  if (m.file_limit > 0) found += fmt::format(", of {:.1f} GiB at most (ulimit -f)", gib(m.file_limit));
  if (m.open_files > 0 && m.open_files < 1024) {
    return {Verdict::slow, "files", found,
            "shards are kept open: ulimit -n 1024, or more than there are shards"};
  }
  if (m.file_limit > 0) {
    return {Verdict::slow, "files", found, "a checkpoint may have larger files: ulimit -f unlimited"};
  }
  return {Verdict::good, "files", found, ""};
}

Finding shared_memory(const MachineFacts& m) {
  if (m.shared_bytes < 0) {
    return {Verdict::broken, "shared memory", "/dev/shm is not there",
            "ranks of one node exchange messages there: mount -t tmpfs shm /dev/shm"};
  }
  const std::string found = fmt::format("{:.2f} GiB free in /dev/shm", gib(m.shared_bytes));
  constexpr int64_t kLeast = int64_t{256} << 20;
  if (m.shared_bytes < kLeast) {
    return {Verdict::broken, "shared memory", found,
            "ranks of one node exchange messages there: docker --shm-size=1g, or mount -o remount,size=1g "
            "/dev/shm"};
  }
  return {Verdict::good, "shared memory", found, ""};
}

Finding clock(const MachineFacts& m) {
  const std::string found = m.clock_source.empty() ? "not known" : m.clock_source;
  if (m.clock_source == "hpet" || m.clock_source == "acpi_pm" || m.clock_source == "jiffies") {
    return {Verdict::slow, "clock", found,
            "reading it costs a microsecond or more: boot with tsc=reliable, if this machine's TSC is"};
  }
  return {Verdict::good, "clock", found, ""};
}

Finding gpu(const MachineFacts& m) {
  const Gpus& g = m.gpus;
  if (!m.gpu_build) {
    return {Verdict::good, "GPU", m.gpu ? "a driver is loaded; this build computes on the CPU" : "none", ""};
  }
  if (!g.problem.empty()) {
    if (m.gpu || !g.driver.empty()) return {Verdict::slow, "GPU", g.problem, g.cure};
    return {Verdict::good, "GPU", "none, and no driver; device=cpu computes here", ""};
  }
  std::string found;
  std::string missing;  // architectures
  for (const Gpu& one : g.all) {
    found += fmt::format("{}, {:.1f} GiB, compute capability {}.{}; ", one.name, gib(one.memory), one.major,
                         one.minor);
    if (!runs_on(g.built_for, one)) missing = fmt::format("{}{}", one.major, one.minor);
  }
  found += fmt::format("driver for CUDA {}; built for {}", g.driver, g.built_for);
  if (!missing.empty()) {
    return {Verdict::slow, "GPU", found,
            fmt::format("this build has no kernels for it: build with -DCMAKE_CUDA_ARCHITECTURES={}-real",
                        missing)};
  }
  return {Verdict::good, "GPU", found, ""};
}

Finding ranks(const MachineFacts& m) {
  const RankFacts& r = m.ranks;
  if (r.ranks == 1) {
    return {Verdict::good, "MPI",
            fmt::format("{}; one rank (mpirun -n 2 ziggurat doctor tries messages)", m.mpi), ""};
  }
  const bool one_node = r.ranks == r.ranks_here;
  const std::string found = fmt::format("{}; {} ranks{}; {:.0f} us, {:.1f} GB/s", m.mpi, r.ranks,
                                        one_node ? " on one node" : fmt::format(", {} here", r.ranks_here),
                                        1e6 * r.small_seconds, r.bytes_per_second / 1e9);
  const double longest = one_node ? 200e-6 : 500e-6, least = 1e9;
  if (r.small_seconds > longest) {
    return {Verdict::slow, "MPI", found,
            "small messages take long: do ranks share cores (mpirun --report-bindings), or does another "
            "program use them?"};
  }
  if (r.bytes_per_second < least) {
    return {Verdict::slow, "MPI", found,
            one_node
                ? "messages are slower than a copy of memory: is /dev/shm on a disk?"
                : "messages go over a slow network: does MPI use the fast one (ompi_info | grep -i ucx)?"};
  }
  return {Verdict::good, "MPI", found, ""};
}

Finding folder(const FolderFacts& f) {
  const std::string subject = "folder";
  if (!f.problem.empty()) {
    return {Verdict::broken, subject, f.path + ": " + f.problem,
            "checkpoints need to be made, renamed and synced there: put output on another file system"};
  }
  const std::string found = fmt::format("{}: rename, fsync ({:.1f} ms), lock; {:.1f} GiB free", f.path,
                                        1e3 * f.sync_seconds, gib(f.free_bytes));
  if (f.clock_ahead > 30 || f.clock_ahead < -30) {
    return {Verdict::slow, subject,
            fmt::format("{}; its clock is {:+.0f} s off this machine's", found, f.clock_ahead),
            "jobs on other machines tell by the time whether a run's owner lives: let NTP set both clocks"};
  }
  if (f.sync_seconds > 1) {
    return {Verdict::slow, subject, found, "a checkpoint waits for it: use a local disk, or save less often"};
  }
  if (gib(f.free_bytes) < 1) {
    return {Verdict::slow, subject, found, "make room: `ziggurat plan` tells the size of a checkpoint"};
  }
  return {Verdict::good, subject, found, ""};
}

}  // namespace

std::vector<Finding> diagnose(const MachineFacts& machine) {
  return {cpu(machine),    cores(machine), clock_rate(machine),    huge_pages(machine),
          memory(machine), files(machine), shared_memory(machine), clock(machine),
          gpu(machine),    ranks(machine), folder(machine.folder)};
}

}  // namespace ziggurat::apps
