#include <algorithm>
#include <limits>

#include <benchmark/benchmark.h>

#include "apps/kernel_timing.h"

namespace ziggurat::apps {

namespace {

constexpr double kSeconds = 0.02;  // of calls that make one mean
constexpr int kMeans = 10;

class Fastest : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      seconds_ = std::min(seconds_, run.real_accumulated_time / static_cast<double>(run.iterations));
    }
  }
  double seconds() const { return seconds_; }

 private:
  double seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace

double fastest_seconds(const std::function<void()>& body) {
  benchmark::RegisterBenchmark("kernel",
                               [&](benchmark::State& state) {
                                 for ([[maybe_unused]] auto call : state) body();
                               })
      ->UseRealTime()
      ->MinTime(kSeconds)
      ->Repetitions(kMeans);
  Fastest fastest;
  benchmark::RunSpecifiedBenchmarks(&fastest, "all");
  benchmark::ClearRegisteredBenchmarks();
  return fastest.seconds();
}

}  // namespace ziggurat::apps
