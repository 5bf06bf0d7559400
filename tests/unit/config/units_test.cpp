#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config);
    return e.what();
  }
  return "no error";
}

TEST(Units, CountsAreDecimalAndExact) {
  EXPECT_EQ(parse_count("0"), 0);
  EXPECT_EQ(parse_count("300B"), 300'000'000'000);
  EXPECT_EQ(parse_count("375M"), 375'000'000);
  EXPECT_EQ(parse_count("4K"), 4000);
  EXPECT_EQ(parse_count("1.5T"), 1'500'000'000'000);
  EXPECT_EQ(parse_count("1_000"), 1000);
  EXPECT_EQ(parse_count("1.5K"), 1500);
  EXPECT_EQ(parse_count("3.75e8"), 375'000'000);
  EXPECT_EQ(parse_count("1.0"), 1);
  EXPECT_EQ(parse_count("1500e-3K"), 1500);
  EXPECT_EQ(parse_count("-7"), -7);
  EXPECT_EQ(parse_count("9223372036854775807"), INT64_MAX);  // not representable as double
}

TEST(Units, CountsRefuseWhatIsNotWholeOrNotANumber) {
  for (const char* text : {"1.2345K", "0.5", "9223372036854775808", "10000000T", "1e19", "1e-1"}) {
    EXPECT_NE(error_of([&] { parse_count(text); }).find("it is not whole or above 2^63"), std::string::npos)
        << text;
  }
  for (const char* text : {"",    "-",   ".",  "K",  "abc", "012", "00",  "1__0", "_1",  "1_",        "0x10",
                           "nan", "inf", "1e", "1k", "1G",  "1KB", "1 2", "1K2",  "--1", "1e99999999"}) {
    EXPECT_NE(error_of([&] { parse_count(text); }), "no error") << text;
  }
  EXPECT_EQ(error_of([] { parse_count("012"); }),
            "expected a whole count such as 300B, 375M or 1_000, got '012': it has a leading zero");
}

TEST(Units, BytesKnowBothFamilies) {
  EXPECT_EQ(parse_bytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("512MiB"), int64_t{512} << 20);
  EXPECT_EQ(parse_bytes("1GB"), 1'000'000'000);
  EXPECT_EQ(parse_bytes("1.5 GiB"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("0.001KB"), 1);
  EXPECT_EQ(parse_bytes("77B"), 77);
  EXPECT_NE(error_of([] { parse_bytes("0.001KiB"); }), "no error");
  EXPECT_NE(error_of([] { parse_bytes("2gib"); }), "no error");
  EXPECT_NE(error_of([] { parse_bytes("8388608TiB"); }), "no error");  // 2^63
}

TEST(Units, DurationsAddUp) {
  EXPECT_EQ(parse_duration("90m"), 5400.0);
  EXPECT_EQ(parse_duration("36h"), 129600.0);
  EXPECT_EQ(parse_duration("30s"), 30.0);
  EXPECT_EQ(parse_duration("2d"), 172800.0);
  EXPECT_EQ(parse_duration("6d04h"), 6 * 86400.0 + 4 * 3600.0);
  EXPECT_EQ(parse_duration("1h30m"), 5400.0);
  EXPECT_EQ(parse_duration("0.5"), 0.5);
  EXPECT_EQ(parse_duration("250ms"), 0.25);
  EXPECT_EQ(parse_duration("1.5s"), 1.5);
  for (const char* text : {"30m1h", "1h1h", "1h30", "5 3m", "1y", "", "1ms2ms", "01h", "1e400s"}) {
    EXPECT_NE(error_of([&] { parse_duration(text); }), "no error") << text;
  }
}

TEST(Units, Formats) {
  EXPECT_EQ(format_count(1.26e9), "1.26B");
  EXPECT_EQ(format_count(300e9), "300B");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.6), "1K");
  EXPECT_EQ(format_count(999'999), "1M");
  EXPECT_EQ(format_count(286'102), "286K");
  EXPECT_EQ(format_count(-1500), "-1.5K");
  EXPECT_EQ(format_count(5e18), "5000000T");
  EXPECT_EQ(format_bytes(2147483648.0), "2GiB");
  EXPECT_EQ(format_bytes(61.3 * 1073741824.0), "61.3GiB");
  EXPECT_EQ(format_bytes(512), "512B");
  EXPECT_EQ(format_duration(6 * 86400 + 4 * 3600 + 1800), "6d04h");
  EXPECT_EQ(format_duration(5400), "1h30m");
  EXPECT_EQ(format_duration(485), "8m05s");
  EXPECT_EQ(format_duration(59.7), "1m00s");
  EXPECT_EQ(format_duration(12), "12s");
  EXPECT_EQ(format_duration(0.35), "350ms");
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(-90), "-1m30s");
}

}  // namespace
}  // namespace ziggurat
