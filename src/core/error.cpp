#include <ziggurat/core/error.h>

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
      return 2;
    case ErrorKind::data:
    case ErrorKind::checkpoint:
      return 3;
    case ErrorKind::numeric:
      return 77;
    default:
      return 1;
  }
}

}  // namespace ziggurat
