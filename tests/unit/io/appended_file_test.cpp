#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/io/appended_file.h>

namespace ziggurat {
namespace {

using ::testing::HasSubstr;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;

TEST(AppendedFile, AppendsPieces) {
  const TempDir folder;
  const std::string path = folder / "metrics.jsonl";
  for (const char* line : {"one\n", "two\n"}) AppendedFile(path).append(line);
  EXPECT_EQ(read_text(path), "one\ntwo\n");
  AppendedFile().append("nothing");  // ranks other than 0
}

TEST(AppendedFile, AFileThatCannotBeOpenedIsNamed) {
  const TempDir folder;
  EXPECT_THAT(ziggurat::testing::error_of(ErrorKind::config,
                                          [&] { AppendedFile writer(folder / "nowhere/metrics.jsonl"); }),
              HasSubstr("nowhere/metrics.jsonl"));
}

// /dev/full takes no byte: a full disk.
TEST(AppendedFile, TrainingGoesOnWithAFullDisk) {
  AppendedFile writer("/dev/full");
  EXPECT_NO_THROW(writer.append("{}"));
  EXPECT_NO_THROW(writer.append("{}"));
}

}  // namespace
}  // namespace ziggurat
