#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/gpus.h>

namespace ziggurat {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Gpu capability(int major, int minor) { return {"a GPU", major, minor, int64_t{80} << 30}; }

TEST(Gpus, CodeRunsInItsFamilyFromItsMinorOn) {
  const char* const built = "sm_80 sm_90a sm_100";
  for (const Gpu& gpu :
       {capability(8, 0), capability(8, 6), capability(9, 0), capability(10, 0), capability(10, 3)}) {
    EXPECT_TRUE(runs_on(built, gpu)) << gpu.major << "." << gpu.minor;
  }
  for (const Gpu& gpu : {capability(7, 5), capability(9, 1), capability(12, 0)}) {
    EXPECT_FALSE(runs_on(built, gpu)) << gpu.major << "." << gpu.minor;
  }
  EXPECT_FALSE(runs_on("sm_86", capability(8, 0)));
  EXPECT_FALSE(runs_on("", capability(8, 0)));
}

std::string refusal(const Gpus& gpus, int number) {
  try {
    check_gpu(gpus, number);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    return error.what();
  }
  return "";
}

TEST(Gpus, WhatCannotBeUsedIsRefusedWithItsCure) {
  Gpus gpus{"13.0", "sm_80", "no GPU is there", "docker --gpus all", {}};
  EXPECT_EQ(refusal(gpus, 0), "device=cuda: no GPU is there: docker --gpus all");
  gpus.problem = gpus.cure = "";
  gpus.all = {capability(8, 0), capability(9, 0)};
  EXPECT_EQ(refusal(gpus, 0), "");
  EXPECT_THAT(refusal(gpus, 1), AllOf(HasSubstr("9.0"), HasSubstr("-DCMAKE_CUDA_ARCHITECTURES=90-real")));
  EXPECT_EQ(refusal(gpus, 2), "");  // there are more ranks than GPUs
}

}  // namespace
}  // namespace ziggurat
