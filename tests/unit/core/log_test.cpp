#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/core/log.h>

namespace ziggurat {
namespace {

using testing::HasSubstr;
using testing::Not;

class Log : public testing::Test {
 protected:
  void TearDown() override {
    init_log(0, 1, "");  // lets go of the files
    std::filesystem::remove_all(directory_);
  }
  std::string file(int rank) const {
    std::ifstream in(directory_ / ("rank_" + std::to_string(rank) + ".log"));
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("ziggurat_log_test_" + std::to_string(getpid()));
};

TEST_F(Log, OtherRanksWriteToTheirFileOnlyTaggedWithTheRank) {
  testing::internal::CaptureStdout();
  init_log(3, 8, directory_.string());
  info("a line with {}", 42);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_THAT(file(3), HasSubstr("[3/8]"));
  EXPECT_THAT(file(3), HasSubstr("a line with 42"));
}

TEST_F(Log, RankZeroWritesToTheTerminalAndTheFile) {
  testing::internal::CaptureStdout();
  init_log(0, 2, directory_.string());
  info("hello");
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("hello"));
  EXPECT_THAT(file(0), HasSubstr("hello"));
}

TEST_F(Log, TheLevelHidesWhatIsBelow) {
  init_log(1, 2, directory_.string(), LogLevel::warn);
  info("quiet");
  warn("loud");
  EXPECT_THAT(file(1), Not(HasSubstr("quiet")));
  EXPECT_THAT(file(1), HasSubstr("loud"));
}

TEST_F(Log, AFatalMessageReachesTheTerminalFromAnyRank) {
  init_log(5, 8, directory_.string());
  testing::internal::CaptureStderr();
  log_fatal("rank 5 lost its data");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rank 5 lost its data"));
  EXPECT_THAT(file(5), HasSubstr("rank 5 lost its data"));
}

TEST_F(Log, AFatalMessageIsToldOnce) {
  init_log(0, 8, directory_.string());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  log_fatal("rank 0 lost its data");
  EXPECT_THAT(testing::internal::GetCapturedStdout(), Not(HasSubstr("lost")));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rank 0 lost its data"));
  EXPECT_THAT(file(0), HasSubstr("rank 0 lost its data"));
}

}  // namespace
}  // namespace ziggurat
