#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "watch/flight_text.h"
#include "watch/job_ranks.h"
#include <ziggurat/core/exit_codes.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/signals.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/core/utc.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/stop_requests.h>
#include <ziggurat/watch/watchdog.h>

namespace ziggurat::watch {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

constexpr double kLeastStepLimit = 60, kSteps = 5;                      // seconds, median steps
constexpr double kBeatsOfALimit = 12, kLeastBeat = 0.1, kMostBeat = 5;  // seconds
// Others of this machine find out at about the same time: so long they may take to tell it too, before a
// launcher ends them because this rank has ended.
constexpr double kForOthers = 3;          // seconds
constexpr unsigned kSecondsToReport = 6;  // more means that a lock, or a disk, holds up the report too

}  // namespace

double limit_of(Phase phase, double median_step, const WatchConfig& config) {
  if (config.timeout > 0) return config.timeout;
  if (phase == Phase::end) return kLeastStepLimit;
  if (phase != Phase::step || median_step <= 0) return config.long_phases;
  return std::max(kLeastStepLimit, kSteps * median_step);
}

struct Watchdog::Thread {
  Thread(Communicator& world, int node, const WatchConfig& watch_config)
      : config(watch_config), ranks(world, node), wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    polled = ranks.processes();
    polled.push_back({.fd = wake, .events = POLLIN, .revents = 0});
    listen_to_quit();
    wake_on_signals(wake);
    report_exits(true);
    thread = std::thread([this] { run(); });
  }

  ~Thread() {
    flight_log().say_goodbye();
    ending = true;
    wake_for_signal();
    thread.join();
    wake_on_signals(-1);
    report_exits(false);
    write_stacks_to("");
    ::close(wake);
    const std::string path = folder();
    ranks.forget(path);
    std::error_code error;
    if (!path.empty()) fs::remove(path, error);  // unless there is something in it
  }

  std::string folder() {
    const std::lock_guard lock(mutex);
    return flight_folder;
  }

  void run() {
    Timer since_tick;
    double idle = 0;  // as long as this process ran: who was stopped himself has nobody to blame
    int64_t progress = -1;
    tell_events();  // of who has ended meanwhile
    while (!ending) {
      const double limit = limit_of(flight_log().phase(), flight_log().usual_step(), config);
      const double beat = std::clamp(limit / kBeatsOfALimit, kLeastBeat, kMostBeat);
      for (size_t i = 0; i < ranks.processes().size(); ++i) polled[i].fd = ranks.processes()[i].fd;
      const int ready = ::poll(polled.data(), polled.size(), static_cast<int>(std::lround(beat * 1e3)));
      if (ending) return;
      tell_events();
      const double passed = std::min(since_tick.seconds(), 2 * beat);
      since_tick.restart();
      flight_log().beat();
      if (ready == 0) ranks.tell(folder());
      idle = flight_log().progress() == progress ? idle + passed : 0;
      progress = flight_log().progress();
      if (ready == 0 && idle >= limit / 2) ranks.look(folder());
      if (idle >= limit) end_hanging(idle, limit);
    }
  }

  void tell_events() {
    for (size_t i = 0; i < ranks.processes().size(); ++i) ranks.processes()[i].revents = polled[i].revents;
    uint64_t signals = 0;
    if (::read(wake, &signals, sizeof signals) < 0 && errno != EAGAIN) return;
    for (const size_t i : ranks.ended()) {
      if (!ranks.others()[i].said_goodbye) end_with(ranks.others()[i]);
    }
    if (ranks.launcher_ended()) {
      const std::string text = "the launcher has ended, and so does this rank";
      if (ranks.speaks()) tell("{}: {}", who(), text);
      leave(exit_codes::other, text);
    }
    if (terminate_to_tell() && ranks.self().rank == 0) {
      // On stderr: mpirun reads no standard output any more, and who writes there may wait for it for ever.
      tell(
          "SIGTERM or SIGINT: this step is finished and saved, as far as the launcher leaves the time "
          "(mpirun: "
          "one second). To end a run gracefully, send SIGUSR1, to mpirun or to any rank");
    }
    if (quit_asked()) {
      ranks.look_at_self();
      write(flight_log(), ranks.self().rank, "SIGQUIT");
      tell("{}: {}{}", who(), doing(ranks.self()), written());
    }
  }

  std::string who() const {
    return fmt::format("rank {} of {} ({})", ranks.self().rank, ranks.size(), ranks.self().place);
  }
  std::string written() {
    const std::string path = folder();
    return path.empty() ? "" : fmt::format("; what it did last: {}/rank_{}.log", path, ranks.self().rank);
  }

  template <class... Args>
  static void tell(fmt::format_string<Args...> format, Args&&... args) {
    log_fatal(fmt::format(format, std::forward<Args>(args)...));
  }

  void write(const FlightLog& log, int rank, const std::string& why) {
    const std::string path = folder();
    if (path.empty()) return;
    std::error_code error;
    fs::create_directories(path, error);
    std::ofstream file(fmt::format("{}/rank_{}.log", path, rank), std::ios::app);
    file << fmt::format("{} {}, by rank {}\n{}", utc_now(), why, ranks.self().rank, flight_text(log));
  }

  [[noreturn]] void leave(int code, const std::string& words) {
    flight_log().say_last_words(words, code, true);
    let_others_tell();
    ::_exit(code);
  }

  [[noreturn]] void end_hanging(double idle, double limit) {
    handle_signal(SIGALRM, [](int) { ::_exit(exit_codes::hang); });
    ::alarm(kSecondsToReport);
    ranks.look_at_self();
    const std::vector<std::string> missing = missing_ranks(ranks.self(), ranks.others());
    const std::string text =
        fmt::format("no progress for {:.1f} s (watch: {:.1f} s in this phase): {}; missing: {}", idle, limit,
                    doing(ranks.self()),
                    missing.empty() ? "no rank stands out" : fmt::format("{}", fmt::join(missing, ", ")));
    tell("{}: {}{}", who(), text, written());
    write(flight_log(), ranks.self().rank, "no progress");
    if (ranks.speaks()) {
      for (const RankView& other : ranks.others()) {
        if ((other.dead || other.stopped) && ranks.log_of(other.rank) != nullptr) {
          write(*ranks.log_of(other.rank), other.rank, "stopped or dead");
        }
      }
    }
    constexpr int kMilliseconds = 1000;  // of a busy machine
    write_stack(kMilliseconds);
    leave(exit_codes::hang, text);
  }

  // Others of this machine than the first leave it to that one to speak, as to the rank itself, if it could.
  [[noreturn]] void end_with(const RankView& lost) {
    const bool silent = lost.words.text.empty();
    const std::string text =
        fmt::format("rank {} of {} ({}) {}: {}", lost.rank, ranks.size(), lost.place,
                    silent ? "was killed without a word: SIGKILL, perhaps for want of memory, or _exit()"
                           : lost.words.text,
                    doing(lost));
    if (silent && ranks.speaks()) {
      tell("{}", text);
    } else {
      log_to_file(text);
    }
    if (ranks.speaks() && ranks.log_of(lost.rank) != nullptr)
      write(*ranks.log_of(lost.rank), lost.rank, "dead");
    const int code = silent ? exit_codes::other : lost.words.exit_code;
    if (code == exit_codes::hang)
      write(flight_log(), ranks.self().rank, "another rank ended for want of progress");
    leave(code, "ended, since " + text);
  }

  void let_others_tell() const {
    const Timer waited;
    while (!ranks.all_have_told() && waited.seconds() < kForOthers) std::this_thread::sleep_for(20ms);
  }

  const WatchConfig config;
  JobRanks ranks;
  int wake;
  std::vector<pollfd> polled;
  std::mutex mutex;
  std::string flight_folder;
  std::atomic<bool> ending = false;
  std::thread thread;
};

Watchdog::Watchdog(Communicator& world, int node, const WatchConfig& config)
    : thread_(std::make_unique<Thread>(world, node, config)) {}
Watchdog::~Watchdog() = default;

void Watchdog::let_others_tell() const { thread_->let_others_tell(); }

void Watchdog::use_folder(const std::string& run_folder) {
  const std::string path = run_folder + "/flight";
  std::error_code error;
  fs::create_directories(path, error);
  write_stacks_to(fmt::format("{}/rank_{}.log", path, thread_->ranks.self().rank));
  const std::lock_guard lock(thread_->mutex);
  thread_->flight_folder = path;
}

}  // namespace ziggurat::watch
