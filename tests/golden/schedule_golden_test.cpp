// Learning rates against transformers' (scripts/golden/make_schedule_goldens.py).
#include <gtest/gtest.h>

#include "tests/support/golden_file.h"
#include <ziggurat/optim/schedule.h>

namespace ziggurat::test {
namespace {

TEST(ScheduleGolden, RatesAreThoseOfTransformers) {
  const GoldenFile file = GoldenFile::committed("schedules");
  constexpr int64_t kTokens = 1000;  // of a step
  for (const LrScheduleKind kind : {LrScheduleKind::cosine, LrScheduleKind::linear, LrScheduleKind::constant,
                                    LrScheduleKind::wsd, LrScheduleKind::rsqrt, LrScheduleKind::flat_rsqrt}) {
    OptimizerConfig config;
    config.schedule = kind;
    config.lr = file.number("lr"), config.min_lr = file.number("min_lr");
    config.warmup_tokens = file.whole("warmup") * kTokens;
    config.decay_tokens = file.whole("steps") * kTokens;
    config.wsd_decay_tokens = file.whole("decay") * kTokens;
    const std::vector<double> want = file.doubles(enum_text(kind));
    // Its wsd warms up from min_lr, and its cosine rises again after the end.
    const int64_t first = kind == LrScheduleKind::wsd ? file.whole("warmup") : 0;
    const auto last = kind == LrScheduleKind::cosine ? file.whole("steps") : std::ssize(want) - 1;
    for (int64_t step = first; step <= last; ++step) {
      EXPECT_NEAR(learning_rate(config, step * kTokens), want[static_cast<size_t>(step)], 1e-12)
          << enum_text(kind) << ", step " << step;
    }
  }
}

}  // namespace
}  // namespace ziggurat::test
