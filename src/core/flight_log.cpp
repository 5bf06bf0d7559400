#include <algorithm>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ziggurat/core/flight_log.h>

namespace ziggurat {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

struct Mapped {
  int descriptor = -1;
  FlightLog* log = nullptr;
};

void* map_file(int descriptor, int protection) {
  void* memory = ::mmap(nullptr, sizeof(FlightLog), protection, MAP_SHARED, descriptor, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

// A file without a name: nothing is left of it when the last process that has it ends, however it ends.
Mapped make_log() {
  const int descriptor = ::memfd_create("ziggurat flight log", MFD_CLOEXEC);
  if (descriptor >= 0 && ::ftruncate(descriptor, sizeof(FlightLog)) == 0) {
    if (void* memory = map_file(descriptor, PROT_READ | PROT_WRITE)) {
      return {descriptor, static_cast<FlightLog*>(memory)};
    }
  }
  if (descriptor >= 0) ::close(descriptor);
  static FlightLog alone;
  return {-1, &alone};
}

const Mapped& this_process() {
  static const Mapped mapped = make_log();
  return mapped;
}

}  // namespace

const char* to_string(Phase phase) {
  switch (phase) {
    case Phase::start:
      return "start";
    case Phase::load:
      return "load";
    case Phase::step:
      return "step";
    case Phase::evaluation:
      return "evaluation";
    case Phase::save:
      return "save";
    case Phase::end:
      return "end";
  }
  return "unknown";
}

template <int Words>
void SharedText<Words>::set(std::string_view text) {
  for (size_t i = 0; i < static_cast<size_t>(Words); ++i) {
    uint64_t word = 0;
    const size_t at = i * sizeof word;
    if (at < text.size()) std::memcpy(&word, text.data() + at, std::min(sizeof word, text.size() - at));
    words_[i].store(word, kRelaxed);
  }
}

template <int Words>
std::string SharedText<Words>::str() const {
  std::array<char, sizeof(uint64_t) * Words> text;
  for (size_t i = 0; i < static_cast<size_t>(Words); ++i) {
    const uint64_t word = words_[i].load(kRelaxed);
    std::memcpy(text.data() + i * sizeof word, &word, sizeof word);
  }
  return {text.data(), ::strnlen(text.data(), text.size())};
}

template class SharedText<2>;
template class SharedText<64>;

std::string FlightEvent::str() const {
  if (is_phase) return fmt::format("{} of step {}", name, sequence);
  return fmt::format("{} #{} of {} bytes on '{}'", name, sequence, bytes, group);
}

int64_t FlightLog::now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void FlightLog::begin_phase(Phase phase, int64_t step) {
  const int64_t time = now();
  Slot& slot = slot_of(events_.fetch_add(1, kRelaxed) + 1);
  slot.is_phase.store(1, kRelaxed), slot.sequence.store(step, kRelaxed), slot.bytes.store(0, kRelaxed);
  slot.began.store(time, kRelaxed), slot.ended.store(0, kRelaxed);
  slot.name.set(to_string(phase)), slot.group.set("");
  phase_.store(static_cast<int64_t>(phase), kRelaxed), step_.store(step, kRelaxed);
  phase_began_.store(time, kRelaxed);
  note_progress();
}

int64_t FlightLog::begin_collective(std::string_view name, std::string_view group, int64_t sequence,
                                    int64_t bytes) {
  begin_wait();
  return note_collective(name, group, sequence, bytes);
}

int64_t FlightLog::note_collective(std::string_view name, std::string_view group, int64_t sequence,
                                   int64_t bytes) {
  const int64_t event = events_.fetch_add(1, kRelaxed) + 1;
  Slot& slot = slot_of(event);
  slot.is_phase.store(0, kRelaxed), slot.sequence.store(sequence, kRelaxed),
      slot.bytes.store(bytes, kRelaxed);
  slot.ended.store(0, kRelaxed);
  slot.name.set(name), slot.group.set(group);
  slot.began.store(now(), kRelaxed);
  latest_collective_.store(event, std::memory_order_release);
  return event;
}

void FlightLog::end_collective(int64_t event) {
  end_noted(event);
  end_wait();
}

void FlightLog::end_noted(int64_t event) {
  slot_of(event).ended.store(now(), kRelaxed);
  note_progress();
}

// Groups make groups, and say so to each other, inside a collective: only the outermost one counts.
void FlightLog::begin_wait() {
  if (depth_.fetch_add(1, kRelaxed) == 0) wait_began_.store(now(), kRelaxed);
  note_progress();
}

void FlightLog::end_wait() {
  if (depth_.fetch_sub(1, kRelaxed) == 1) waited_.fetch_add(now() - wait_began_.load(kRelaxed), kRelaxed);
  note_progress();
}

void FlightLog::say_last_words(std::string_view text, int exit_code, bool told) {
  int64_t nobody = 0;
  if (!words_said_.compare_exchange_strong(nobody, 1)) return;
  words_.set(text);
  exit_code_.store(exit_code), told_.store(told ? 1 : 0);
  words_said_.store(2);
}

LastWords FlightLog::last_words() const {
  if (words_said_.load() != 2) return {};
  return {words_.str(), static_cast<int>(exit_code_.load()), told_.load() != 0};
}

FlightEvent FlightLog::read(const Slot& slot) {
  return {.is_phase = slot.is_phase.load(kRelaxed) != 0,
          .name = slot.name.str(),
          .group = slot.group.str(),
          .sequence = slot.sequence.load(kRelaxed),
          .bytes = slot.bytes.load(kRelaxed),
          .began = slot.began.load(kRelaxed),
          .ended = slot.ended.load(kRelaxed)};
}

FlightEvent FlightLog::latest_collective() const {
  const int64_t event = latest_collective_.load(std::memory_order_acquire);
  return event == 0 ? FlightEvent{} : read(slots_[static_cast<size_t>((event - 1) % kEvents)]);
}

std::vector<FlightEvent> FlightLog::events() const {
  std::vector<FlightEvent> all;
  const int64_t end = events_.load();
  for (int64_t i = std::max<int64_t>(0, end - kEvents); i < end; ++i) {
    all.push_back(read(slots_[static_cast<size_t>(i % kEvents)]));
  }
  return all;
}

FlightLog& flight_log() { return *this_process().log; }
int flight_log_descriptor() { return this_process().descriptor; }

const FlightLog* map_flight_log(int64_t pid, int descriptor) {
  if (descriptor < 0) return nullptr;
  const int file = ::open(fmt::format("/proc/{}/fd/{}", pid, descriptor).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return nullptr;
  const off_t bytes = ::lseek(file, 0, SEEK_END);
  void* memory = bytes == static_cast<off_t>(sizeof(FlightLog)) ? map_file(file, PROT_READ) : nullptr;
  ::close(file);
  return static_cast<const FlightLog*>(memory);
}

}  // namespace ziggurat
