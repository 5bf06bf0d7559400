#include "apps/kernel_timing.h"
#include <ziggurat/core/error.h>

namespace ziggurat::apps {

double fastest_seconds(const std::function<void()>&) {
  fail(ErrorKind::argument, "this build cannot time kernels; install libbenchmark-dev and build again");
}

}  // namespace ziggurat::apps
