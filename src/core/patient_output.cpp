#include "core/patient_output.h"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ziggurat {

// Opened anew, since others who have the same descriptor, as a shell has its terminal's, may want to wait.
PatientOutput::PatientOutput(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return;
  if (!S_ISFIFO(status.st_mode) && ::isatty(descriptor) == 0) return;
  file_ = ::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(),
                 O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

PatientOutput::~PatientOutput() {
  if (file_ < 0) return;
  patient_ = true;  // once more, for the last lines
  write("");
  ::close(file_);
}

bool PatientOutput::write(const std::string& line) {
  Sent sent = send_rest();
  if (sent == Sent::all && left_out_ > 0) {
    rest_ = fmt::format("({} lines were left out, as nobody read on; the log file has them)\n", left_out_);
    left_out_ = 0;
    sent = send_rest();
  }
  if (sent == Sent::all) {
    rest_ = line;
    sent = send_rest();
  } else {
    left_out_ += line.empty() ? 0 : 1;
  }
  return sent != Sent::never;
}

PatientOutput::Sent PatientOutput::send_rest() {
  constexpr int kMilliseconds = 500;
  while (!rest_.empty()) {
    const ssize_t n = ::write(file_, rest_.data(), rest_.size());
    if (n >= 0) {
      rest_.erase(0, static_cast<size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Sent::never;
    pollfd out{.fd = file_, .events = POLLOUT, .revents = 0};
    if (!patient_ || ::poll(&out, 1, kMilliseconds) <= 0) {
      patient_ = false;
      return Sent::part;
    }
  }
  patient_ = true;
  return Sent::all;
}

}  // namespace ziggurat
