#include <cmath>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/config/config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/optim/schedule.h>

namespace ziggurat::test {
namespace {

OptimizerConfig with(LrScheduleKind kind) {
  OptimizerConfig c;
  c.schedule = kind;
  c.lr = 2.0;
  c.min_lr = 0.5;
  c.warmup_tokens = 1000;
  c.decay_tokens = 9000;
  c.wsd_decay_tokens = 2000;
  return c;
}

struct Point {
  LrScheduleKind kind;
  int64_t tokens;
  double rate;
};

TEST(LearningRate, KnownPoints) {
  const std::vector<Point> points = {
      {LrScheduleKind::cosine, 0, 0.0},
      {LrScheduleKind::cosine, 250, 0.5},
      {LrScheduleKind::cosine, 1000, 2.0},
      {LrScheduleKind::cosine, 5000, 1.25},
      {LrScheduleKind::cosine, 3000, 0.5 + 1.5 * (0.5 + 0.25 * std::sqrt(2.0))},
      {LrScheduleKind::cosine, 9000, 0.5},
      {LrScheduleKind::cosine, 1000000, 0.5},
      {LrScheduleKind::linear, 500, 1.0},
      {LrScheduleKind::linear, 5000, 1.25},
      {LrScheduleKind::linear, 7000, 0.875},
      {LrScheduleKind::linear, 9000, 0.5},
      {LrScheduleKind::constant, 999, 1.998},
      {LrScheduleKind::constant, 1000000000, 2.0},
      {LrScheduleKind::wsd, 6999, 2.0},
      {LrScheduleKind::wsd, 8000, 1.25},
      {LrScheduleKind::wsd, 9000, 0.5},
      {LrScheduleKind::wsd, 9001, 0.5},
      {LrScheduleKind::rsqrt, 1000, 2.0},
      {LrScheduleKind::rsqrt, 4000, 1.0},
      {LrScheduleKind::rsqrt, 16000, 0.5},
      {LrScheduleKind::rsqrt, 64000, 0.5},
  };
  for (const Point& point : points) {
    EXPECT_NEAR(learning_rate(with(point.kind), point.tokens), point.rate, 1e-12)
        << enum_text(point.kind) << " at " << point.tokens;
  }
}

TEST(LearningRate, RisesThenFallsWithoutJumps) {
  for (const auto kind : {LrScheduleKind::cosine, LrScheduleKind::linear, LrScheduleKind::constant,
                          LrScheduleKind::wsd, LrScheduleKind::rsqrt}) {
    const OptimizerConfig c = with(kind);
    double before = 0;
    for (int64_t t = 0; t < 20000; ++t) {
      const double rate = learning_rate(c, t);
      ASSERT_LE(std::abs(rate - before), 2.0 / 1000 * 1.001)
          << enum_text(kind) << " at " << t;  // warm-up is steepest
      ASSERT_TRUE(t <= 1000 ? rate >= before : rate <= before) << enum_text(kind) << " at " << t;
      before = rate;
    }
  }
}

TEST(LearningRate, WithoutWarmUpStartsAtThePeak) {
  for (const auto kind :
       {LrScheduleKind::cosine, LrScheduleKind::linear, LrScheduleKind::constant, LrScheduleKind::wsd}) {
    OptimizerConfig c = with(kind);
    c.warmup_tokens = 0;
    EXPECT_EQ(learning_rate(c, 0), 2.0);
    c.decay_tokens = 0;
    EXPECT_TRUE(std::isfinite(learning_rate(c, 0)));
  }
}

// 1.3B dense: 32, 64, ... 512 over 1,953,125 samples: 15 increments of 130,208.3 samples.
TEST(BatchRampup, PublishedModel) {
  const BatchRampup ramp({32, 32, 1'953'125}, 512);
  const std::vector<std::pair<int64_t, int64_t>> points = {
      {0, 32},          {130'208, 32},    {130'209, 64},     {260'416, 64},    {260'417, 96},
      {390'624, 96},    {390'625, 128},   {1'822'916, 448},  {1'822'917, 480}, {1'953'124, 480},
      {1'953'125, 512}, {1'953'126, 512}, {100'000'000, 512}};
  for (const auto& [consumed, batch] : points) EXPECT_EQ(ramp.batch(consumed), batch) << consumed;
}

BatchRampup::Extent by_walking(const BatchRampup& ramp, int64_t samples) {
  BatchRampup::Extent run;
  for (; run.samples < samples; ++run.steps) run.samples += ramp.batch(run.samples);
  return run;
}

TEST(BatchRampup, StepsEqualAWalk) {
  const std::vector<std::pair<BatchRampupConfig, int64_t>> cases = {{{0, 0, 0}, 7},
                                                                    {{32, 32, 1'953'125}, 512},
                                                                    {{32, 32, 4'882'812}, 1024},
                                                                    {{4, 2, 10}, 64},
                                                                    {{8, 8, 3}, 64},
                                                                    {{5, 1, 1000}, 6},
                                                                    {{7, 3, 500}, 7},
                                                                    {{1, 1, 997}, 100}};
  const Philox rng(9, Purpose::test);
  uint64_t draw = 0;
  for (const auto& [config, batch] : cases) {
    const BatchRampup ramp(config, batch);
    const int64_t span = 2 * config.samples + 10 * batch;
    for (int trial = 0; trial < 40; ++trial) {
      const int64_t samples = trial < 3 ? trial : rng.bits(draw++) % span;
      const BatchRampup::Extent got = ramp.extent(samples), want = by_walking(ramp, samples);
      ASSERT_EQ(std::pair(got.steps, got.samples), std::pair(want.steps, want.samples))
          << config.start << " to " << batch << ", " << samples << " samples";
    }
  }
  EXPECT_EQ(BatchRampup({}, 256).steps_for_tokens(300'000'000'000, 2048), 572'205);  // 350M, 300B tokens
  EXPECT_EQ(BatchRampup({}, 512).steps_for_tokens(300'000'000'000, 2048), 286'103);
}

TEST(BatchRampup, MisuseIsRefused) {
  using Case = std::tuple<BatchRampupConfig, int64_t>;
  for (const auto& [config, batch] :
       {Case{{32, 32, 100}, 500}, Case{{32, 0, 100}, 512}, Case{{32, 32, 0}, 512}, Case{{64, 32, 100}, 32},
        Case{{0, 0, 0}, 0}, Case{{1, 1, INT64_MAX}, 512}}) {
    EXPECT_THROW(BatchRampup(config, batch), Error) << config.start << " " << batch;
  }
}

TEST(OptimizerConfig, LoadsFromYaml) {
  OptimizerConfig c;
  parse_config(
      c,
      "schedule: wsd\nlr: 1e-3\nmin_lr: 0\nwarmup_tokens: 10M\ndecay_tokens: 3B\nwsd_decay_tokens: 300M\n");
  EXPECT_EQ(c.schedule, LrScheduleKind::wsd);
  EXPECT_EQ(c.warmup_tokens, 10'000'000);
  EXPECT_EQ(c.beta2, 0.95);
}

TEST(OptimizerConfig, RefusesWhatCannotWork) {
  for (const char* yaml :
       {"lr: 0", "lr: 1e-4\nmin_lr: 1e-3", "beta1: 1", "eps: 0", "weight_decay: -0.1", "clip_grad: -1",
        "warmup_tokens: 2B\ndecay_tokens: 1B", "schedule: wsd", "schedule: step",
        "schedule: wsd\nwarmup_tokens: 1B\ndecay_tokens: 2B\nwsd_decay_tokens: 1001M",
        "schedule: rsqrt\nwarmup_tokens: 0", "learning_rate: 1"}) {
    OptimizerConfig c;
    EXPECT_THROW(parse_config(c, yaml), Error) << yaml;
  }
  for (const char* yaml : {"start: 8", "start: 8\nincrement: 8", "start: 8\nsamples: 5", "start: -1"}) {
    BatchRampupConfig c;
    EXPECT_THROW(parse_config(c, yaml), Error) << yaml;
  }
}

}  // namespace
}  // namespace ziggurat::test
