// Errors that a user may meet. The message says what was expected, what came, where, and what to change.
// Only src/apps ends the process; everybody else throws.
#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace ziggurat {

enum class ErrorKind { config, argument, data, checkpoint, device, communication, numeric, internal };

const char* to_string(ErrorKind kind);

// The exit code of the binary that an error of this kind ends (core/exit_codes.h has them all, and those of
// other ends).
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Checks at the door of a room; the arguments are only formatted when the check fails.
//   check(x.rank() == 2, ErrorKind::argument, "[linear] x: expected [N, K], got {}", x.shape());
template <class... Args>
void check(bool ok, ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]] {
    fail(kind, format, std::forward<Args>(args)...);
  }
}

}  // namespace ziggurat
