#include <algorithm>
#include <limits>

#include <ziggurat/runtime/device_timer.h>

namespace ziggurat {

double fastest_on_device(Stream& stream, const std::function<void()>& body, const Repetitions& repetitions) {
  constexpr double kMostCalls = 1000;
  DeviceTimer timer;
  const auto mean_of = [&](int64_t calls) {
    timer.start(stream);
    for (int64_t i = 0; i < calls; ++i) body();
    timer.stop(stream);
    return timer.seconds() / static_cast<double>(calls);
  };
  mean_of(1);
  const double one = std::max(mean_of(1), 1e-9);
  const auto calls = static_cast<int64_t>(std::clamp(repetitions.seconds / one, 1.0, kMostCalls));
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repetitions.means; ++i) best = std::min(best, mean_of(calls));
  return best;
}

}  // namespace ziggurat
