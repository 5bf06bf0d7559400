// The engine of `ziggurat bench kernels`: Google Benchmark, which chooses how often to call.
#pragma once

#include <functional>

namespace ziggurat::apps {

// Seconds of one call of `body`: the fastest of some means over many calls. Throws Error(argument) where this
// build has no Google Benchmark.
double fastest_seconds(const std::function<void()>& body);

}  // namespace ziggurat::apps
