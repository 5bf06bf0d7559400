#include <chrono>
#include <cstdlib>
#include <sstream>
#include <string>

#include <unistd.h>

#include <ziggurat/io/system_facts.h>
#include <ziggurat/watch/deadline.h>

namespace ziggurat::watch {

namespace {

// Phases may take half as long again as the longest of late, and MPI and the launcher take seconds to end.
constexpr double kSpare = 1.5, kSecondsToEnd = 4;
constexpr double kGuessedBytesPerSecond = 100e6;  // of a rank that writes with its peers to one file system

}  // namespace

double process_started() {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const std::string line = first_line("/proc/self/stat");  // field 22, of which 2 is a name in brackets
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string skipped;
  constexpr int kBefore = 19;
  for (int i = 0; i < kBefore; ++i) fields >> skipped;
  double ticks = 0;  // since the machine started
  fields >> ticks;
  const double up = std::strtod(first_line("/proc/uptime").c_str(), nullptr);
  const double age = up - ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
  return fields && age > 0 ? now - age : now;
}

Deadline::Deadline(double started, double limit, const char* job_end) {
  if (limit > 0) at_ = started + limit;
  const double end = job_end == nullptr ? 0 : std::strtod(job_end, nullptr);
  if (end > 0 && (!at_ || end < *at_)) at_ = end;
}

void Deadline::guess_save(int64_t bytes) {
  guessed_save_ = static_cast<double>(bytes) / kGuessedBytesPerSecond;
}

bool Deadline::reached(double now, bool evaluates_now, bool saves_now) const {
  if (!at_) return false;
  const double save = saves_.empty() ? guessed_save_ : saves_.longest();
  const double work =
      steps_.longest() + (evaluates_now ? evaluations_.longest() : 0) + (saves_now ? save : 0) + save;
  return now + kSpare * work + kSecondsToEnd >= *at_;
}

}  // namespace ziggurat::watch
