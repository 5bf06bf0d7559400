#include <ziggurat/core/error.h>
#include <ziggurat/core/exit_codes.h>

namespace ziggurat {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::config:
      return "config";
    case ErrorKind::argument:
      return "argument";
    case ErrorKind::data:
      return "data";
    case ErrorKind::checkpoint:
      return "checkpoint";
    case ErrorKind::device:
      return "device";
    case ErrorKind::communication:
      return "communication";
    case ErrorKind::numeric:
      return "numeric";
    case ErrorKind::internal:
      return "internal";
  }
  return "unknown";
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::config:
    case ErrorKind::argument:
      return exit_codes::config;
    case ErrorKind::data:
    case ErrorKind::checkpoint:
      return exit_codes::data;
    case ErrorKind::numeric:
      return exit_codes::numeric;
    default:
      return exit_codes::other;
  }
}

}  // namespace ziggurat
