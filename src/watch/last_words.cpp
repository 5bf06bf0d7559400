#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <span>
#include <thread>

#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <ziggurat/core/exit_codes.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/signal_text.h>
#include <ziggurat/core/signals.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::watch {

namespace {

constexpr int kStackSignal = SIGURG;  // which nobody sends, and which is ignored where nobody listens
constexpr int kSignalCode = 128;      // and the signal's number: what shells make of a death by signal

pthread_t worker;  // the thread that does the work
std::array<char, 64> heading{};
std::array<char, 4096> stack_path{};
std::atomic<bool> tells_exits = false, quit_to_tell = false, quit = false, stack_written = false;
std::array<struct sigaction, 32> others;  // by the signal's number

const char* name_of(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV, memory that is not its own";
    case SIGILL:
      return "SIGILL, an instruction that this CPU does not have";
    case SIGFPE:
      return "SIGFPE, a division by zero";
    case SIGABRT:
      return "SIGABRT, its own abort()";
    case SIGBUS:
      return "SIGBUS, memory without anything behind it";
    default:
      return "a signal";
  }
}

int open_stack_file() {
  if (stack_path[0] == '\0') return -1;
  return ::open(stack_path.data(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

void write_stack_of_this_thread(std::string_view title, bool to_stderr) {
  std::array<void*, 64> frames;
  const int depth = ::backtrace(frames.data(), static_cast<int>(frames.size()));
  const auto write_to = [&](int file) {
    SignalText text;
    text << title << "\n";
    text.write(file);
    ::backtrace_symbols_fd(frames.data(), depth, file);
  };
  const int file = open_stack_file();
  if (file >= 0) {
    write_to(file);
    ::close(file);
  }
  if (to_stderr || file < 0) write_to(STDERR_FILENO);
}

// "ziggurat: rank 1 in step 12"
void say_who(SignalText& text) {
  text << "ziggurat: " << heading.data() << (heading[0] == '\0' ? "in " : " in ")
       << to_string(flight_log().phase()) << (flight_log().phase() == Phase::step ? " " : " after step ")
       << flight_log().step();
}

void on_fatal(int signal, siginfo_t* info, void*) {
  ::sigaction(signal, &others[static_cast<size_t>(signal)], nullptr);
  SignalText cause;
  cause << "was ended by signal " << signal << " (" << name_of(signal) << ")";
  if (info->si_code <= 0 && signal != SIGABRT) {
    cause << " from process " << info->si_pid;
  }
  flight_log().say_last_words(cause.view(), kSignalCode + signal, true);
  SignalText message;
  say_who(message);
  message << ": " << cause.view();
  write_stack_of_this_thread(message.view(), true);
  if (info->si_code <= 0) ::raise(signal);  // else what faulted does so again
}

void on_quit(int) {
  const int error = errno;
  quit_to_tell = true;
  ::pthread_kill(worker, kStackSignal);
  errno = error;
}

void on_stack_wanted(int) {
  const int error = errno;
  const bool asked = quit_to_tell.exchange(false);
  write_stack_of_this_thread("stack of the thread that does the work:", asked);
  stack_written = true;
  if (asked) {
    quit = true;
    wake_for_signal();
  }
  errno = error;
}

void on_exit_call(int status, void*) {
  if (!tells_exits) return;
  SignalText cause;
  cause << "called exit(" << status << ")";
  flight_log().say_last_words(cause.view(), status != 0 ? status : exit_codes::other, true);
  SignalText message;
  say_who(message);
  message << ": " << cause.view() << "\n";
  message.write(STDERR_FILENO);
}

void keep_text(std::span<char> place, const std::string& text) {
  const size_t n = std::min(text.size(), place.size() - 1);
  std::memcpy(place.data(), text.data(), n);
  place[n] = '\0';
}

}  // namespace

void say_last_words(const std::string& who) {
  worker = ::pthread_self();
  keep_text(heading, who);
  std::array<void*, 1> frame;
  ::backtrace(frame.data(), 1);  // which loads a library, at the first call
  for (const int signal : {SIGSEGV, SIGILL, SIGFPE, SIGABRT, SIGBUS}) {
    others[static_cast<size_t>(signal)] = handle_signal(signal, on_fatal);
  }
}

void report_exits(bool unexpected) {
  static const int registered = ::on_exit(on_exit_call, nullptr);
  tells_exits = unexpected && registered == 0;
}

void write_stacks_to(const std::string& path) { keep_text(stack_path, path); }

void listen_to_quit() {
  handle_signal(kStackSignal, on_stack_wanted);
  handle_signal(SIGQUIT, on_quit);
}

bool quit_asked() { return quit.exchange(false); }

void write_stack(int milliseconds) {
  using namespace std::chrono_literals;
  stack_written = false;
  ::pthread_kill(worker, kStackSignal);
  for (int i = 0; i < milliseconds && !stack_written; ++i) std::this_thread::sleep_for(1ms);
}

}  // namespace ziggurat::watch
