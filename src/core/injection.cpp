#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>
#include <type_traits>

#include <unistd.h>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/injection.h>

namespace ziggurat {

namespace {

// In the order of the enums; values first.
constexpr std::array kSites = {"loss", "gradient", "weight", "master", "init",
                               "step", "compute",  "reduce", "update", "eval",
                               "save", "stage",    "write",  "commit", "shutdown"};
constexpr std::array kKinds = {"nan",  "inf",   "flip",     "scale", "delay", "throw", "bad_alloc",
                               "exit", "abort", "segfault", "kill",  "stop",  "usr1"};

bool of_values(Site site) { return site <= Site::master; }
bool of_values(FaultKind kind) { return kind <= FaultKind::scale; }

std::vector<std::string_view> cut(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

template <class E, size_t N>
E choose(const std::array<const char*, N>& names, std::string_view word, const char* what,
         std::string_view whole) {
  const auto at = std::find(names.begin(), names.end(), word);
  check(at != names.end(), ErrorKind::config, "ZIGGURAT_INJECT: '{}': expected {} ({}), got '{}'", whole,
        what, fmt::join(names, ", "), word);
  return static_cast<E>(at - names.begin());
}

template <class T>
void parse(std::string_view text, T& value, std::string_view whole) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(), ErrorKind::config,
        "ZIGGURAT_INJECT: '{}': expected a number, got '{}'", whole, text);
}

void set(Fault& fault, std::string_view key, std::string_view value, std::string_view whole) {
  const std::array<std::pair<const char*, int64_t*>, 7> numbers = {{{"rank", &fault.rank},
                                                                    {"step", &fault.step},
                                                                    {"times", &fault.times},
                                                                    {"element", &fault.element},
                                                                    {"bit", &fault.bit},
                                                                    {"ms", &fault.ms},
                                                                    {"code", &fault.code}}};
  for (const auto& [name, number] : numbers) {
    if (key != name) continue;
    parse(value, *number, whole);
    check(*number >= 0, ErrorKind::config, "ZIGGURAT_INJECT: '{}': expected {} of at least 0", whole, key);
    return;
  }
  if (key == "by") return parse(value, fault.by, whole);
  check(key == "tensor", ErrorKind::config,
        "ZIGGURAT_INJECT: '{}': expected rank, step, times, tensor, element, bit, by, ms or code, got '{}'",
        whole, key);
  fault.tensor = value;
}

Fault parse_fault(std::string_view text) {
  const std::vector<std::string_view> parts = cut(text, ':');
  check(parts.size() >= 2, ErrorKind::config, "ZIGGURAT_INJECT: '{}': expected SITE:FAULT[:key=value]...",
        text);
  Fault fault;
  fault.site = choose<Site>(kSites, parts[0], "a site", text);
  fault.kind = choose<FaultKind>(kKinds, parts[1], "a fault", text);
  check(of_values(fault.site) == of_values(fault.kind), ErrorKind::config,
        "ZIGGURAT_INJECT: '{}': {} cannot happen to {}: nan, inf, flip and scale change values (loss, "
        "gradient, "
        "weight, master), the others come at moments",
        text, parts[1], parts[0]);
  for (size_t i = 2; i < parts.size(); ++i) {
    const size_t equals = std::min(parts[i].find('='), parts[i].size());
    const std::string_view value = parts[i].substr(std::min(equals + 1, parts[i].size()));
    set(fault, parts[i].substr(0, equals), value, text);
  }
  return fault;
}

struct OfProcess {
  std::mutex mutex;
  Injection faults;
  std::atomic<bool> any{false};
  OfProcess() {
    const char* text = std::getenv("ZIGGURAT_INJECT");
    if (text != nullptr) faults = Injection(text);
    any = faults.any();
  }
};

OfProcess& of_process() {
  static OfProcess all;
  return all;
}

void happen(const Fault& fault, const std::string& where) {
  switch (fault.kind) {
    case FaultKind::delay:
      std::this_thread::sleep_for(std::chrono::milliseconds(fault.ms));
      return;
    case FaultKind::raise:
      fail(ErrorKind::internal, "injected at {}", where);
    case FaultKind::bad_alloc:
      throw std::bad_alloc();
    case FaultKind::exit:
      std::exit(static_cast<int>(fault.code));  // as a library that thinks it is the program
    case FaultKind::abort:
      std::abort();
    case FaultKind::segfault:
      std::raise(SIGSEGV);
      return;
    case FaultKind::kill:
      std::raise(SIGKILL);
      return;
    case FaultKind::stop:
      std::raise(SIGSTOP);
      return;
    case FaultKind::usr1:
      kill(getpid(), SIGUSR1);
      for (sigset_t pending; sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1;)
        std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // until the thread that took it has said so
      return;
    default:
      return;  // changes values
  }
}

}  // namespace

template <class T>
T Fault::spoiled(T value) const {
  using Bits =
      std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  switch (kind) {
    case FaultKind::nan:
      return T(std::numeric_limits<float>::quiet_NaN());
    case FaultKind::inf:
      return T(std::numeric_limits<float>::infinity());
    case FaultKind::scale:
      return T(static_cast<double>(value) * by);
    case FaultKind::flip: {
      check(bit < static_cast<int64_t>(8 * sizeof(T)), ErrorKind::config,
            "ZIGGURAT_INJECT: bit {} of a value that has {}", bit, 8 * sizeof(T));
      const auto flipped = static_cast<Bits>(std::bit_cast<Bits>(value) ^ (Bits{1} << bit));
      return std::bit_cast<T>(flipped);
    }
    default:
      return value;  // comes at a moment
  }
}

template float Fault::spoiled(float) const;
template double Fault::spoiled(double) const;
template bf16 Fault::spoiled(bf16) const;

Injection::Injection(const std::string& text) {
  for (const std::string_view part : cut(text, ';')) {
    if (!part.empty()) faults_.push_back({parse_fault(part), {}});
  }
}

std::vector<Fault> Injection::take(Site site, int rank, int64_t step) {
  std::vector<Fault> due;
  for (Planned& planned : faults_) {
    const Fault& fault = planned.fault;
    if (fault.site != site || (fault.rank >= 0 && fault.rank != rank) || step < fault.step) continue;
    int64_t& taken = planned.taken[rank];
    if (fault.times > 0 && taken == fault.times) continue;
    ++taken;
    due.push_back(fault);
  }
  return due;
}

bool injecting() { return of_process().any.load(std::memory_order_relaxed); }

void inject(const std::string& text) {
  OfProcess& all = of_process();
  const std::lock_guard lock(all.mutex);
  all.faults = Injection(text);
  all.any = all.faults.any();
}

std::vector<Fault> due_faults(Site site, int rank, int64_t step) {
  if (!injecting()) return {};
  OfProcess& all = of_process();
  const std::lock_guard lock(all.mutex);
  return all.faults.take(site, rank, step);
}

void reach(Site site, int rank, int64_t step) {
  for (const Fault& fault : due_faults(site, rank, step)) {
    happen(fault, fmt::format("{} of step {} on rank {}", kSites[static_cast<size_t>(site)], step, rank));
  }
}

}  // namespace ziggurat
