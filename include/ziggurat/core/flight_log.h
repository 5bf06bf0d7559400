// What this process does and has just done: phases and collectives, for whoever finds it hanging or dead.
//
// One thread writes (the one that talks to other ranks), without locks, at the price of two looks at the
// clock a collective. Any thread may read at any time, and so may other processes of this machine: the log
// lies in memory that they can map, which outlives its owner in them. What is written while it is read may
// come out as a mix of two events.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

enum class Phase : int64_t { start, load, step, evaluation, save, end };
const char* to_string(Phase phase);

// The first bytes of a text, whole words at a time.
template <int Words>
class SharedText {
 public:
  void set(std::string_view text);  // async-signal-safe
  std::string str() const;

 private:
  std::array<std::atomic<uint64_t>, Words> words_;
};

struct FlightEvent {
  bool is_phase = false;
  std::string name;              // of the phase or collective
  std::string group;             // that the collective is of
  int64_t sequence = 0;          // of the collective in its group; of a phase: the step
  int64_t bytes = 0;             // of this rank's input
  int64_t began = 0, ended = 0;  // nanoseconds of the steady clock; 0: not yet

  std::string str() const;  // "all_reduce #12 of 4096 bytes on 'world'"
};

// How a process ended, as it said itself.
struct LastWords {
  std::string text;  // empty: it has said nothing
  int exit_code = 0;
  bool told = false;  // on stderr, by itself
};

// Memory of zeros is an empty log.
class FlightLog {
 public:
  static constexpr int64_t kEvents = 512;  // the newest that are kept
  static int64_t now();                    // nanoseconds of the steady clock

  void begin_phase(Phase phase, int64_t step);
  // Returns the number of the event, which its end wants.
  int64_t begin_collective(std::string_view name, std::string_view group, int64_t sequence, int64_t bytes);
  void end_collective(int64_t event);
  // The same of one that goes on while this process computes.
  int64_t note_collective(std::string_view name, std::string_view group, int64_t sequence, int64_t bytes);
  void end_noted(int64_t event);
  // Waiting for a collective that began before; no event.
  void begin_wait();
  void end_wait();
  void note_progress() {
    progress_.fetch_add(1, std::memory_order_relaxed);
  }                                                                      // in long phases without events
  void beat() { beats_.fetch_add(1, std::memory_order_relaxed); }        // by a thread that does nothing else
  void say_last_words(std::string_view text, int exit_code, bool told);  // the first stand; async-signal-safe
  void set_usual_step(double seconds) { usual_step_.store(static_cast<int64_t>(seconds * 1e9)); }
  void say_goodbye() { goodbye_.store(1); }  // its end is no loss any more

  Phase phase() const { return static_cast<Phase>(phase_.load()); }
  int64_t step() const { return step_.load(); }
  int64_t phase_began() const { return phase_began_.load(); }
  bool waits() const { return depth_.load() > 0; }  // in a collective
  int64_t progress() const { return progress_.load(); }
  int64_t beats() const { return beats_.load(); }
  int64_t waited() const { return waited_.load(); }  // nanoseconds in collectives so far
  double usual_step() const { return static_cast<double>(usual_step_.load()) * 1e-9; }  // 0: not known yet
  bool said_goodbye() const { return goodbye_.load() != 0; }
  LastWords last_words() const;
  FlightEvent latest_collective() const;
  std::vector<FlightEvent> events() const;  // oldest first

 private:
  struct Slot {
    std::atomic<int64_t> is_phase, sequence, bytes, began, ended;
    SharedText<2> name, group;
  };
  Slot& slot_of(int64_t event) { return slots_[static_cast<size_t>((event - 1) % kEvents)]; }
  static FlightEvent read(const Slot& slot);

  std::atomic<int64_t> phase_, step_, phase_began_, depth_, wait_began_, waited_, progress_, beats_, goodbye_;
  std::atomic<int64_t> usual_step_, words_said_, exit_code_, told_;
  SharedText<64> words_;
  std::atomic<int64_t> events_, latest_collective_;  // counted from 1; 0: there was none
  std::array<Slot, kEvents> slots_;
};

// This process's own; made at the first call.
FlightLog& flight_log();

// The file that holds it, for this machine's processes to map by /proc/<pid>/fd/<this>; -1: only this
// process sees it.
int flight_log_descriptor();

// Another process's, for reading; null where it cannot be mapped. It stays mapped.
const FlightLog* map_flight_log(int64_t pid, int descriptor);

}  // namespace ziggurat
