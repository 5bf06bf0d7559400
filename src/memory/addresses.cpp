#include "memory/addresses.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ziggurat/io/system_facts.h>

namespace ziggurat {

namespace {

// Linux maps downwards from the top of 128 TiB, puts programs at two thirds of them and, where stacks are
// unlimited, maps upwards from one third. Below that all is free.
constexpr uintptr_t kFirst = uintptr_t{1} << 40, kLast = uintptr_t{40} << 40;
constexpr uintptr_t kAlign = uintptr_t{1} << 30;

std::mutex mutex;
std::map<uintptr_t, uintptr_t> rooms;  // begin, end

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

int64_t physical_memory() { return sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

std::optional<int64_t> number_in(const std::string& path) {
  std::istringstream text(first_line(path));
  int64_t n = 0;
  if (text >> n) return n;
  return std::nullopt;  // no such file, or "max"
}

// The smallest limit of the control groups that this process is in (version 2, or 1 where that one holds
// memory).
int64_t cgroup_limit() {
  int64_t limit = kNoLimit;
  std::ifstream groups("/proc/self/cgroup");  // "0::/a/b" or "4:cpu,memory:/a/b"
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",memory,") == std::string::npos) continue;
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const std::string file = unified ? "/memory.max" : "/memory.limit_in_bytes";
    for (std::filesystem::path path = line.substr(second + 1);; path = path.parent_path()) {
      limit = std::min(limit, number_in(root + path.string() + file).value_or(kNoLimit));
      if (!path.has_relative_path()) break;
    }
  }
  return limit < physical_memory() ? limit : kNoLimit;  // version 1 says "no limit" by a huge number
}

int64_t address_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kNoLimit;
  return static_cast<int64_t>(limit.rlim_cur);
}

std::string gib(int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30));
}

}  // namespace

char* take_room(int64_t bytes) {
  const std::lock_guard lock(mutex);
  const uintptr_t size = (static_cast<uintptr_t>(bytes) + kAlign - 1) / kAlign * kAlign;
  uintptr_t at = kFirst;
  while (size <= kLast - kFirst && at <= kLast - size) {
    const auto next = std::find_if(rooms.begin(), rooms.end(), [&](const auto& r) { return r.second > at; });
    if (next != rooms.end() && next->first < at + size) {
      at = next->second;
      continue;
    }
    char* const begin = reinterpret_cast<char*>(at);
    const int64_t page = sysconf(_SC_PAGESIZE);
    if (char* const probe = map_memory(begin, page); probe != nullptr) {
      munmap(probe, static_cast<size_t>(page));
      rooms.emplace(at, at + size);
      return begin;
    }
    at += size;  // somebody else's, as under a sanitizer
  }
  return nullptr;
}

void give_back_room(char* begin) {
  const std::lock_guard lock(mutex);
  rooms.erase(reinterpret_cast<uintptr_t>(begin));
}

char* map_memory(char* at, int64_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at == nullptr ? 0 : MAP_FIXED_NOREPLACE);
  void* const got = mmap(at, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (got == MAP_FAILED) return nullptr;
  if (at != nullptr && got != at) {  // a kernel before 4.17, to which the address was a wish
    munmap(got, static_cast<size_t>(bytes));
    return nullptr;
  }
  madvise(got, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // best effort
  return static_cast<char*>(got);
}

int64_t memory_limit() { return std::min({physical_memory(), address_limit(), cgroup_limit()}); }

std::string describe_memory_limits() {
  std::string text = fmt::format("this machine has {}", gib(physical_memory()));
  if (const int64_t limit = address_limit(); limit != kNoLimit) {
    const int64_t pages = number_in("/proc/self/statm").value_or(0);
    text += fmt::format(
        "; addresses are limited to {} (ulimit -v, h_vmem), of which {} are taken: raise that limit",
        gib(limit), gib(pages * sysconf(_SC_PAGESIZE)));
  }
  if (const int64_t limit = cgroup_limit(); limit != kNoLimit) {
    text += fmt::format("; the job's control group allows {}: ask the scheduler for more", gib(limit));
  }
  if (number_in("/proc/sys/vm/overcommit_memory") == 2) {
    text += fmt::format(
        "; vm.overcommit_memory=2 allows {} on this machine, of which {} are taken: leave more to this "
        "process",
        gib(meminfo("CommitLimit")), gib(meminfo("Committed_AS")));
  }
  return text;
}

}  // namespace ziggurat
