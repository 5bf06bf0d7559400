// ziggurat doctor [--folder DIR]: looks at this machine and says what to change. Under mpirun every rank
// looks at its own place, and at the messages between them.
#include "apps/doctor.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/version.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/cpu.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/io/system_facts.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

namespace {

// "always [madvise] never": the one in brackets.
std::string chosen(const std::string& words) {
  const size_t begin = words.find('['), end = words.find(']');
  return begin == std::string::npos || end == std::string::npos ? ""
                                                                : words.substr(begin + 1, end - begin - 1);
}

int64_t limit(__rlimit_resource which) {
  rlimit now{};
  return getrlimit(which, &now) != 0 || now.rlim_cur == RLIM_INFINITY ? 0
                                                                      : static_cast<int64_t>(now.rlim_cur);
}

// Of cgroups, version 2 or else 1. Only those of this process's own root: what a container sees.
void read_cgroup(MachineFacts& m) {
  double quota = 0, period = 0;
  if (std::ifstream file("/sys/fs/cgroup/cpu.max"); !(file >> quota >> period)) {
    quota = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str());
    period = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str());
  }
  if (quota > 0 && period > 0) m.quota_cores = quota / period;
  std::string bytes = first_line("/sys/fs/cgroup/memory.max");
  if (bytes.empty()) bytes = first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  const int64_t granted = std::atoll(bytes.c_str());
  if (granted > 0 && granted < m.memory_bytes) m.memory_limit = granted;
}

void read_processor(MachineFacts& m) {
  char name[64];
  name_of_this_cpu(name, sizeof(name));
  m.cpu = name;
  m.level = x86_64_level(features_of_this_cpu());
  m.built_level = x86_64_level(kBuiltForFeatures);
  m.online_cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  m.our_cores = available_cores();
  const std::string cpu0 = "/sys/devices/system/cpu/cpu0/";
  const std::string siblings = first_line(cpu0 + "topology/thread_siblings_list");
  m.threads_per_core = siblings.find_first_of(",-") == std::string::npos ? 1 : 2;
  m.governor = first_line(cpu0 + "cpufreq/scaling_governor");
  m.huge_pages = chosen(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  m.clock_source = first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
}

void read_limits(MachineFacts& m) {
  m.memory_bytes = meminfo("MemTotal");
  m.available_bytes = meminfo("MemAvailable");
  m.address_limit = limit(RLIMIT_AS);
  m.open_files = limit(RLIMIT_NOFILE);
  m.file_limit = limit(RLIMIT_FSIZE);
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) == 0) m.shared_bytes = static_cast<int64_t>(shm.f_bavail * shm.f_frsize);
  m.gpu = std::filesystem::exists("/proc/driver/nvidia/version");
  m.gpu_build = !built_for_gpus().empty();
  if (m.gpu_build) m.gpus = look_for_gpus();
  read_cgroup(m);
}

// What a checkpoint asks of a file system, with a file of its own that goes again.
FolderFacts try_folder(const std::string& path) {
  namespace fs = std::filesystem;
  FolderFacts facts;
  facts.path = path;
  std::string file = (fs::path(path) / "ziggurat-doctor-XXXXXX").string();
  const int descriptor = mkstemp(file.data());
  const auto failed = [&](const char* what) {
    facts.problem = fmt::format("{}: {}", what, std::strerror(errno));
    return facts;
  };
  if (descriptor < 0) return failed("no file can be made");
  const std::string renamed = file + ".renamed";
  const auto clean = [&] {
    close(descriptor);
    unlink(file.c_str());
    unlink(renamed.c_str());
  };
  const auto give_up = [&](const char* what) {
    failed(what);
    clean();
    return facts;
  };
  if (write(descriptor, "doctor\n", 7) != 7) return give_up("a file cannot be written");
  const Timer timer;
  if (fsync(descriptor) != 0) return give_up("fsync fails");
  facts.sync_seconds = timer.seconds();
  struct stat status {};
  if (fstat(descriptor, &status) == 0) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    facts.clock_ahead = static_cast<double>(status.st_mtim.tv_sec - now.tv_sec);
  }
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) return give_up("flock fails");
  if (rename(file.c_str(), renamed.c_str()) != 0) return give_up("rename fails");
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 || fsync(folder) != 0) {
    if (folder >= 0) close(folder);
    return give_up("fsync of the folder fails");
  }
  close(folder);
  clean();
  struct statvfs room {};
  if (statvfs(path.c_str(), &room) == 0)
    facts.free_bytes = static_cast<int64_t>(room.f_bavail * room.f_frsize);
  return facts;
}

// The quickest of some rounds: others may use the machine too.
template <class Body>
double quickest(int rounds, const Body& body) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const Timer timer;
    body();
    best = std::min(best, timer.seconds());
  }
  return best;
}

// How many ranks of the job run on this node: those that say its name.
int ranks_here(Communicator& world) {
  const auto color = static_cast<int>(std::hash<std::string>{}(host_name()) & 0x7fffffff);
  return world.split(color, world.rank(), "node")->size();
}

RankFacts try_messages(Communicator& world) {
  RankFacts facts;
  facts.ranks = world.size();
  facts.ranks_here = ranks_here(world);
  if (world.size() == 1) return facts;
  Stream stream;
  double one = 1;
  Tensor number(&one, DType::f64, {1});
  facts.small_seconds =
      quickest(200, [&] { world.all_reduce(number, ReduceOp::max, ReduceOrder::any, stream).wait(); });
  std::vector<double> many(size_t{2} << 20);  // 16 MiB
  Tensor large(many.data(), DType::f64, {static_cast<int64_t>(many.size())});
  const double seconds = quickest(5, [&] { world.broadcast(large, 0, stream).wait(); });
  facts.bytes_per_second = static_cast<double>(many.size() * sizeof(double)) / seconds;
  return facts;
}

// Rank 0 prints all of it; the others what is wrong with their places.
int print(const std::vector<Finding>& findings, const Communicator& world) {
  int broken = 0;
  for (const Finding& finding : findings) {
    const bool good = finding.verdict == Verdict::good;
    broken += finding.verdict == Verdict::broken;
    if (good && world.rank() != 0) continue;
    if (world.rank() != 0) fmt::print("rank {} on {}: ", world.rank(), host_name());
    const char* const verdict = good ? "ok" : finding.verdict == Verdict::slow ? "slow" : "BAD";
    fmt::print("{:<6}{:<15}{}\n", verdict, finding.subject, finding.found);
    if (!good) fmt::print("{:<21}-> {}\n", "", finding.cure);
  }
  std::fflush(stdout);
  return broken;
}

}  // namespace

void doctor(const std::string& folder) {
  on_ranks({}, [&](MpiRuntime& mpi) {
    Communicator& world = mpi.world();
    MachineFacts machine;
    read_processor(machine);
    read_limits(machine);
    machine.mpi = mpi_library();
    machine.ranks = try_messages(world);
    machine.folder = try_folder(folder);
    double broken = 0;
    for (int rank = 0; rank < world.size(); ++rank) {  // in turn
      if (rank == world.rank()) broken = print(diagnose(machine), world);
      world.barrier();
    }
    Stream stream;
    world.all_reduce(Tensor(&broken, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, stream).wait();
    check(broken == 0, ErrorKind::device, "{:.0f} of the above must be changed before Ziggurat can run here",
          broken);
  });
}

}  // namespace ziggurat::apps
