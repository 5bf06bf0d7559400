#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>

namespace ziggurat {
namespace {

using testing::HasSubstr;
using testing::Not;

class Log : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override {
    init_log(0, 1);  // lets go of the files
    std::filesystem::remove_all(directory_);
  }
  std::string file(int rank) const {
    std::ifstream in(directory_ / ("rank_" + std::to_string(rank) + ".log"));
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static int left_out_in(const std::string& text) {
    const size_t at = text.find('(');
    return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + 1);
  }
  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("ziggurat_log_test_" + std::to_string(getpid()));
};

TEST_F(Log, OtherRanksWriteToTheirFileOnlyTaggedWithTheRank) {
  testing::internal::CaptureStdout();
  init_log(3, 8);
  log_to_folder(directory_.string());
  info("a line with {}", 42);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_THAT(file(3), HasSubstr("[3/8]"));
  EXPECT_THAT(file(3), HasSubstr("a line with 42"));
}

TEST_F(Log, RankZeroWritesToTheTerminalAndTheFile) {
  testing::internal::CaptureStdout();
  init_log(0, 2);
  log_to_folder(directory_.string());
  info("hello");
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("hello"));
  EXPECT_THAT(file(0), HasSubstr("hello"));
}

TEST_F(Log, TheLevelHidesWhatIsBelow) {
  init_log(1, 2, LogLevel::warn);
  log_to_folder(directory_.string());
  info("quiet");
  warn("loud");
  EXPECT_THAT(file(1), Not(HasSubstr("quiet")));
  EXPECT_THAT(file(1), HasSubstr("loud"));
}

TEST_F(Log, AFatalMessageReachesTheTerminalFromAnyRank) {
  init_log(5, 8);
  log_to_folder(directory_.string());
  testing::internal::CaptureStderr();
  log_fatal("rank 5 lost its data");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rank 5 lost its data"));
  EXPECT_THAT(file(5), HasSubstr("rank 5 lost its data"));
}

TEST_F(Log, AFatalMessageIsToldOnce) {
  init_log(0, 8);
  log_to_folder(directory_.string());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  log_fatal("rank 0 lost its data");
  EXPECT_THAT(testing::internal::GetCapturedStdout(), Not(HasSubstr("lost")));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rank 0 lost its data"));
  EXPECT_THAT(file(0), HasSubstr("rank 0 lost its data"));
}

TEST_F(Log, WhatWasToldBeforeThereIsAFileComesFirst) {
  init_log(2, 4);
  info("early");
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  log_to_folder(directory_.string());
  info("late");
  EXPECT_THAT(file(2), testing::ContainsRegex("2/4. info early\n.*2/4. info late\n"));
}

// A pager that waits for a key, mpirun while it ends a job: the work goes on, and its file has all.
TEST_F(Log, AReaderWhoTakesNothingHoldsUpNobody) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::signal(SIGPIPE, SIG_IGN);
  const int before = ::dup(STDOUT_FILENO);
  ::dup2(ends[1], STDOUT_FILENO);
  init_log(0, 2);
  log_to_folder(directory_.string());
  constexpr int kLines = 3000;  // a pipe takes some hundreds
  for (int line = 0; line < kLines; ++line) info("line {} {}", line, std::string(100, '.'));
  EXPECT_THAT(file(0), HasSubstr(fmt::format("line {} ..", kLines - 1)));

  std::string read;
  const auto read_on = [&] {
    std::array<char, 1 << 16> some{};
    read.append(some.data(), static_cast<size_t>(::read(ends[0], some.data(), some.size())));
  };
  read_on();
  info("when it is back");
  read_on();
  EXPECT_EQ(std::count(read.begin(), read.end(), '\n') + left_out_in(read) - 1, kLines + 1);
  EXPECT_THAT(read, testing::EndsWith("when it is back\n"));
  EXPECT_THAT(read, HasSubstr("were left out, as nobody read on"));

  ::close(ends[0]);
  info("to nobody");
  EXPECT_THAT(file(0), HasSubstr("nobody reads standard output any more"));
  ::dup2(before, STDOUT_FILENO);
  for (const int end : {before, ends[1]}) ::close(end);
}

TEST_F(Log, ARemovedFileIsRemade) {
  init_log(1, 2);
  remake_log_file();  // there is none yet
  log_to_folder(directory_.string());
  info("before");
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directories(directory_);
  remake_log_file();
  info("after");
  EXPECT_THAT(file(1), testing::AllOf(HasSubstr("after"), Not(HasSubstr("before"))));
}

TEST_F(Log, AFileThatCannotBeOpenedIsNamed) {
  init_log(1, 2);
  std::filesystem::create_directory(directory_ / "rank_1.log");
  try {
    log_to_folder(directory_.string());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config);
    EXPECT_THAT(e.what(), HasSubstr("rank_1.log"));
  }
}

}  // namespace
}  // namespace ziggurat
