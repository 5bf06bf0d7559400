// The reader of the oracle files, and what every committed file must hold before a test leans on it.
#include "tests/support/golden_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A safetensors file with one tensor of each dtype, removed at the end.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::map<std::string, std::string>& metadata) {
    std::filesystem::remove(path_);
    const std::vector<NamedTensor> tensors = {{"d", Tensor(d_, DType::f64, {2})},
                                              {"f", Tensor(f_, DType::f32, {1, 2})},
                                              {"i", Tensor(i_, DType::i32, {3})}};
    write_safetensors(path_, tensors, metadata);
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  double d_[2] = {0.1, -2.5};
  float f_[2] = {0.5F, 3.0F};
  int32_t i_[3] = {-1, 0, 7};
  std::string path_ = testing::TempDir() + "golden_file_test_" +
                      testing::UnitTest::GetInstance()->current_test_info()->name() + ".safetensors";
};

std::string error_of(auto action) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::checkpoint);
    return e.what();
  }
  return "no error";
}

TEST(GoldenFile, ReadsEveryDtypeAndTheMetadata) {
  const TemporaryFile file({{"cases", "a b"}, {"lr", "1e-3"}, {"steps", "6"}});
  const GoldenFile golden(file.path());
  EXPECT_THAT(golden.doubles("d"), ElementsAre(0.1, -2.5));
  EXPECT_THAT(golden.doubles("f"), ElementsAre(0.5, 3.0));
  EXPECT_THAT(golden.ints("i"), ElementsAre(-1, 0, 7));
  EXPECT_EQ(golden.shape("f"), Shape({1, 2}));
  EXPECT_THAT(golden.names(), ElementsAre("d", "f", "i"));
  EXPECT_THAT(golden.names("f"), ElementsAre("f"));
  EXPECT_TRUE(golden.contains("d"));
  EXPECT_FALSE(golden.contains("cases"));
  EXPECT_THAT(golden.words("cases"), ElementsAre("a", "b"));
  EXPECT_EQ(golden.number("lr"), 1e-3);
  EXPECT_EQ(golden.whole("steps"), 6);
  EXPECT_TRUE(golden.has_text("lr"));
  EXPECT_FALSE(golden.has_text("d"));
}

TEST(GoldenFile, WrongQuestionsNameTheFileAndTheTensor) {
  const TemporaryFile file({{"half", "0.5"}, {"word", "3x"}});
  const GoldenFile golden(file.path());
  EXPECT_THAT(error_of([&] { golden.doubles("x"); }), HasSubstr(file.path() + ": no tensor 'x'"));
  EXPECT_THAT(error_of([&] { golden.shape("x"); }), HasSubstr("no tensor 'x'"));
  EXPECT_THAT(error_of([&] { golden.doubles("i"); }), HasSubstr("i is i32"));
  EXPECT_THAT(error_of([&] { golden.ints("d"); }), HasSubstr("d is f64"));
  EXPECT_THAT(error_of([&] { golden.text("x"); }), HasSubstr("no metadata x"));
  EXPECT_THAT(error_of([&] { golden.number("word"); }), HasSubstr("'3x' is no number"));
  EXPECT_THAT(error_of([&] { golden.whole("half"); }), HasSubstr("'0.5' is no whole number"));
}

// ---- The committed files ----

TEST(GoldenData, EveryGptParameterHasItsStartGradientAndEnd) {
  for (const char* stem : {"gpt_dense", "gpt_moe_top1", "gpt_moe_top2", "gpt_pr_moe", "gpt_modern"}) {
    SCOPED_TRACE(stem);
    const GoldenFile golden = GoldenFile::committed(stem);
    const auto starts = golden.names("init.");
    ASSERT_GT(starts.size(), 10U);
    EXPECT_EQ(golden.names("grad.").size(), starts.size());
    double square = 0;
    for (const std::string& start : starts) {
      const std::string name = start.substr(std::strlen("init."));
      EXPECT_EQ(golden.shape("grad." + name), golden.shape(start)) << name;
      EXPECT_EQ(golden.shape("final." + name), golden.shape(start)) << name;
      EXPECT_NE(golden.doubles("final." + name), golden.doubles(start)) << name << " was never updated";
      for (const double g : golden.doubles("grad." + name)) square += g * g;
    }
    const auto norms = golden.doubles("grad_norm");
    ASSERT_EQ(norms.size(), static_cast<size_t>(golden.number("steps")));
    EXPECT_NEAR(std::sqrt(square) / norms[0], 1, 1e-12);
    EXPECT_EQ(golden.number("dropped_choices") > 0, std::string(stem).find("moe") != std::string::npos);
  }
}

TEST(GoldenData, NoGateCaseOverfillsAnExpert) {
  const GoldenFile golden = GoldenFile::committed("deepspeed_gates");
  const auto cases = golden.words("cases");
  EXPECT_GT(cases.size(), 50U);
  int64_t dropped = 0;
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    const auto logits_shape = golden.shape(golden.text(name + ".shape") + ".logits");
    const auto expert = golden.ints(name + ".expert"), kept = golden.ints(name + ".kept");
    const auto counts = golden.ints(name + ".exp_counts");
    const auto weight = golden.doubles(name + ".weight");
    const int64_t k = golden.whole(name + ".k");
    ASSERT_EQ(golden.shape(name + ".expert"), Shape({logits_shape[0], k}));
    ASSERT_EQ(static_cast<int64_t>(counts.size()), logits_shape[1]);

    std::vector<int64_t> chosen(counts.size()), used(counts.size());
    for (size_t i = 0; i < expert.size(); ++i) {
      const auto e = static_cast<size_t>(expert[i]);
      ASSERT_LT(e, counts.size());
      chosen[e] += 1;
      used[e] += kept[i];
      dropped += 1 - kept[i];
      EXPECT_EQ(weight[i] > 0, kept[i] == 1);
    }
    EXPECT_EQ(chosen, counts);
    const int64_t capacity = golden.ints(name + ".capacity")[0];
    for (size_t e = 0; e < used.size(); ++e) EXPECT_EQ(used[e], std::min(counts[e], capacity));
  }
  EXPECT_GT(dropped, 100);
}

TEST(GoldenData, EveryLayerCaseHasAGradientForEachOfItsWeights) {
  const GoldenFile golden = GoldenFile::committed("deepspeed_layers");
  for (const std::string& name : golden.words("cases")) {
    SCOPED_TRACE(name);
    EXPECT_EQ(golden.shape(name + ".output"), golden.shape("rank0.x"));
    const bool residual = golden.number(name + ".residual") == 1;
    for (const std::string& weight : golden.names("weights.")) {
      const std::string parameter = weight.substr(std::strlen("weights."));
      const bool used =
          residual || parameter.starts_with("moe.router") || parameter.starts_with("moe.experts");
      ASSERT_EQ(golden.contains(name + ".grad." + parameter), used) << parameter;
      if (used) {
        EXPECT_EQ(golden.shape(name + ".grad." + parameter), golden.shape(weight));
      }
    }
  }
}

}  // namespace
}  // namespace ziggurat
