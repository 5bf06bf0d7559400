#include <cstdlib>

#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/core/progress.h>
#include <ziggurat/core/terminal.h>

namespace ziggurat {
namespace {

TEST(ProgressLineOfAJob, TellsShareRateAndTimeLeft) {
  const Progress bytes("export", "", int64_t{3} << 30);
  EXPECT_EQ(bytes.line(int64_t{1} << 30, 0, 16, false), "export 33% | 1GiB of 3GiB | 64MiB/s | ETA 32s");
  EXPECT_EQ(bytes.line(int64_t{3} << 30, 0, 48, true), "export 100% | 3GiB of 3GiB | 64MiB/s | took 48s");
}

TEST(ProgressLineOfAJob, WithoutATotalHasNoETA) {
  const Progress merges("learn merges", "merges");
  EXPECT_EQ(merges.line(1000, 0, 2, false), "learn merges | 1K merges | 500 merges/s");
}

TEST(ProgressLineOfAJob, TellsTokensBesideBytes) {
  const Progress job("tokenize", "", 2048);
  EXPECT_EQ(job.line(1024, 500, 1, false), "tokenize 50% | 1KiB of 2KiB | 1KiB/s | 500 tokens/s | ETA 1s");
}

TEST(ProgressLineOfAJob, NothingDoneYetIsNoDivisionByZero) {
  const Progress job("verify", "", 100);
  EXPECT_EQ(job.line(0, 0, 0, false), "verify 0% | 0B of 100B | 0B/s");
}

TEST(Colours, AreForTerminalsOnly) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_FALSE(may_colour(ends[1]));
  EXPECT_EQ(coloured("text", Colour::red, ends[1]), "text");
  ::close(ends[0]), ::close(ends[1]);
}

}  // namespace
}  // namespace ziggurat
