#include <cmath>

#include <gmock/gmock.h>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/injection.h>

namespace ziggurat {
namespace {

using testing::HasSubstr;

TEST(Injection, HappensAtItsSiteOnItsRankFromItsStepOnSoManyTimes) {
  Injection injection("gradient:flip:rank=1:step=5:times=2;step:delay:times=0");
  EXPECT_TRUE(injection.any());
  EXPECT_TRUE(injection.take(Site::gradient, 1, 4).empty());
  EXPECT_TRUE(injection.take(Site::gradient, 0, 5).empty());
  EXPECT_TRUE(injection.take(Site::loss, 1, 5).empty());
  EXPECT_EQ(injection.take(Site::gradient, 1, 5).size(), 1);
  EXPECT_EQ(injection.take(Site::gradient, 1, 5).size(), 1);  // the step is computed again
  EXPECT_TRUE(injection.take(Site::gradient, 1, 6).empty());
  for (int64_t step = 1; step < 9; ++step) EXPECT_EQ(injection.take(Site::step, 3, step).size(), 1);
}

TEST(Injection, WithoutARankEveryRankHasItsOwnTimes) {
  Injection injection("loss:nan");
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(injection.take(Site::loss, rank, 1).size(), 1);
    EXPECT_TRUE(injection.take(Site::loss, rank, 1).empty());
  }
}

TEST(Injection, SpoilsOneValue) {
  const auto one = [](const char* text) { return Injection(text).take(Site::gradient, 0, 1).at(0); };
  EXPECT_TRUE(std::isnan(one("gradient:nan").spoiled(1.0F)));
  EXPECT_TRUE(std::isinf(one("gradient:inf").spoiled(1.0)));
  EXPECT_EQ(one("gradient:scale:by=-2.5").spoiled(2.0F), -5.0F);
  EXPECT_EQ(one("gradient:flip:bit=31").spoiled(1.5F), -1.5F);
  EXPECT_EQ(one("gradient:flip:bit=63").spoiled(1.5), -1.5);
  EXPECT_EQ(float(one("gradient:flip:bit=15").spoiled(bf16(1.5F))), -1.5F);
  EXPECT_EQ(one("gradient:flip:bit=22").spoiled(1.0F), 1.5F);
  EXPECT_THROW(one("gradient:flip:bit=16").spoiled(bf16(1.5F)), Error);
}

TEST(Injection, NamesWhatIsWrongWithItsText) {
  const auto refused = [](const char* text) {
    try {
      Injection injection(text);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refused("grad:flip"), HasSubstr("expected a site (loss, gradient"));
  EXPECT_THAT(refused("gradient:flop"), HasSubstr("got 'flop'"));
  EXPECT_THAT(refused("gradient"), HasSubstr("expected SITE:FAULT"));
  EXPECT_THAT(refused("gradient:kill"), HasSubstr("cannot happen"));
  EXPECT_THAT(refused("step:nan"), HasSubstr("cannot happen"));
  EXPECT_THAT(refused("step:kill:rnk=1"), HasSubstr("got 'rnk'"));
  EXPECT_THAT(refused("step:kill:rank=one"), HasSubstr("got 'one'"));
  EXPECT_THAT(refused("step:kill:rank=-1"), HasSubstr("at least 0"));
  EXPECT_EQ(refused(""), "");
  EXPECT_FALSE(Injection("").any());
}

TEST(Injection, OfTheProcessHappensWhereItIsReached) {
  EXPECT_FALSE(injecting());
  reach(Site::save, 0, 1);
  inject("save:throw:rank=1:step=2;update:bad_alloc");
  EXPECT_TRUE(injecting());
  reach(Site::save, 1, 1);
  reach(Site::save, 0, 2);
  EXPECT_THROW(reach(Site::save, 1, 2), Error);
  reach(Site::save, 1, 2);  // that was it
  EXPECT_THROW(reach(Site::update, 0, 1), std::bad_alloc);
  inject("");
  EXPECT_FALSE(injecting());
}

TEST(InjectionDeathTest, EndsTheProcess) {
  const auto die = [](const char* text) {
    inject(text);
    reach(Site::step, 0, 1);
  };
  EXPECT_EXIT(die("step:exit:code=5"), testing::ExitedWithCode(5), "");
  EXPECT_EXIT(die("step:kill"), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(die("step:segfault"), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(die("step:abort"), testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT(die("step:usr1"), testing::KilledBySignal(SIGUSR1), "");
}

}  // namespace
}  // namespace ziggurat
