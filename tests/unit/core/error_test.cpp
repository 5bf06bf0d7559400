#include <gtest/gtest.h>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

TEST(Error, CarriesKindAndFormattedMessage) {
  try {
    fail(ErrorKind::config, "expected {}, got {}", 2, "three");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_STREQ(error.what(), "expected 2, got three");
  }
}

TEST(Error, CheckThrowsOnlyIfItFails) {
  EXPECT_NO_THROW(check(true, ErrorKind::argument, "unused {}", 1));
  EXPECT_THROW(check(false, ErrorKind::argument, "used {}", 1), Error);
}

TEST(Error, EveryKindHasANameAndTheDocumentedExitCode) {
  const struct {
    ErrorKind kind;
    const char* name;
    int code;
  } table[] = {{ErrorKind::config, "config", 2},    {ErrorKind::argument, "argument", 2},
               {ErrorKind::data, "data", 3},        {ErrorKind::checkpoint, "checkpoint", 3},
               {ErrorKind::device, "device", 1},    {ErrorKind::communication, "communication", 1},
               {ErrorKind::numeric, "numeric", 77}, {ErrorKind::internal, "internal", 1}};
  for (const auto& row : table) {
    EXPECT_STREQ(to_string(row.kind), row.name);
    EXPECT_EQ(exit_code(row.kind), row.code) << row.name;
  }
}

}  // namespace
}  // namespace ziggurat
