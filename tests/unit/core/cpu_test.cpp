#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/core/cpu.h>

namespace ziggurat {
namespace {

using testing::HasSubstr;

CpuFeatures feature(const std::string& wanted) {
  CpuFeatures bit = 1;
#define ZIGGURAT_RETURN_IF_WANTED(macro, name, level) \
  if (wanted == name) return bit;                     \
  bit <<= 1;
  ZIGGURAT_CPU_FEATURES(ZIGGURAT_RETURN_IF_WANTED)
  ADD_FAILURE() << wanted << " is not in the list";
  return 0;
}

CpuFeatures level(int most) {
  CpuFeatures set = 0, bit = 1;
#define ZIGGURAT_ADD_UP_TO_LEVEL(macro, name, its_level) \
  if (its_level <= most) set |= bit;                     \
  bit <<= 1;
  ZIGGURAT_CPU_FEATURES(ZIGGURAT_ADD_UP_TO_LEVEL)
  return set;
}

std::string explanation(CpuFeatures built_for, CpuFeatures here) {
  char text[2048];
  explain_missing_features(built_for, here, "a test's CPU", text, sizeof(text));
  return text;
}

TEST(Cpu, WhatTheBuildNeedsAndTheCpuHasIsNoError) {
  EXPECT_EQ(explanation(0, 0), "");
  EXPECT_EQ(explanation(level(3), level(3)), "");
  EXPECT_EQ(explanation(level(3), level(4) | feature("avx512bf16")), "");
}

TEST(Cpu, WhatIsMissingIsNamedWithTheBuildThatWouldRun) {
  const std::string text = explanation(level(4) | feature("avx512bf16"), level(3) | feature("gfni"));
  EXPECT_THAT(text, HasSubstr("a test's CPU"));
  EXPECT_THAT(text, HasSubstr("lacks avx512f avx512bw avx512cd avx512dq avx512vl avx512bf16."));
  EXPECT_THAT(text, HasSubstr("-DZIGGURAT_MARCH=x86-64-v3"));
  EXPECT_THAT(explanation(level(4), level(4) & ~feature("avx512cd")), HasSubstr("lacks avx512cd."));
  EXPECT_THAT(explanation(level(3), level(3) & ~feature("sse4.2")), HasSubstr("-DZIGGURAT_MARCH=x86-64,"));
  EXPECT_THAT(explanation(feature("xop"), level(2)), HasSubstr("-DZIGGURAT_MARCH=x86-64-v2,"));
}

TEST(Cpu, ALevelNeedsEveryOneOfItsFeatures) {
  EXPECT_EQ(x86_64_level(0), 1);
  for (int n = 1; n <= 4; ++n) EXPECT_EQ(x86_64_level(level(n)), n);
  EXPECT_EQ(x86_64_level(level(5)), 4);
  EXPECT_EQ(x86_64_level(level(4) & ~feature("movbe")), 2);
  EXPECT_EQ(x86_64_level(level(4) & ~feature("sse3")), 1);
}

// Told by another: Linux calls some of them otherwise.
TEST(Cpu, TheFeaturesOfThisCpuAreThoseThatLinuxSees) {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line) && !line.starts_with("flags")) {
  }
  if (!line.starts_with("flags")) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  std::istringstream words(line);
  const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
  const std::map<std::string, std::string> in_linux = {{"sse3", "pni"},
                                                       {"sse4.1", "sse4_1"},
                                                       {"sse4.2", "sse4_2"},
                                                       {"bmi", "bmi1"},
                                                       {"lzcnt", "abm"},
                                                       {"avx512vbmi2", "avx512_vbmi2"},
                                                       {"avx512vnni", "avx512_vnni"},
                                                       {"avx512bitalg", "avx512_bitalg"},
                                                       {"avx512vpopcntdq", "avx512_vpopcntdq"},
                                                       {"avx512bf16", "avx512_bf16"},
                                                       {"avx512fp16", "avx512_fp16"},
                                                       {"avx5124fmaps", "avx512_4fmaps"},
                                                       {"avx5124vnniw", "avx512_4vnniw"},
                                                       {"avxvnni", "avx_vnni"}};
  const CpuFeatures here = features_of_this_cpu();
  CpuFeatures bit = 1;
#define ZIGGURAT_COMPARE(macro, name, level)                                                                \
  EXPECT_EQ((here & bit) != 0, flags.contains(in_linux.contains(name) ? in_linux.at(name) : name)) << name; \
  bit <<= 1;
  ZIGGURAT_CPU_FEATURES(ZIGGURAT_COMPARE)
  EXPECT_EQ(kBuiltForFeatures & ~here, 0u) << "and yet this test runs";
}

TEST(Cpu, ATextThatIsTooLongIsCut) {
  char text[32];
  explain_missing_features(level(5), 0, "a test's CPU", text, sizeof(text));
  EXPECT_EQ(std::string(text).size(), sizeof(text) - 1);
  EXPECT_THAT(text, HasSubstr("this program was built"));
}

}  // namespace
}  // namespace ziggurat
