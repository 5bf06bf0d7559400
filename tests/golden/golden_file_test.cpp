// The reader of the oracle files, and what every committed file must hold before a test leans on it.
#include "tests/support/golden_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Writes header and data as a safetensors file and removes it at the end.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& header, const std::string& data)
      : TemporaryFile(static_cast<uint64_t>(header.size()), header + data) {}
  TemporaryFile(uint64_t header_bytes, const std::string& rest) {
    std::ofstream file(path_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
    file << rest;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = testing::TempDir() + "golden_file_test_" +
                      testing::UnitTest::GetInstance()->current_test_info()->name() + ".safetensors";
};

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

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
  const TemporaryFile file(R"({"__metadata__":{"cases":"a b","lr":"1e-3"},)"
                           R"("d":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
                           R"("f":{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]},)"
                           R"("i":{"dtype":"I32","shape":[3],"data_offsets":[24,36]}})",
                           bytes_of({0.1, -2.5}) + bytes_of({0.5F, 3.0F}) + bytes_of<int32_t>({-1, 0, 7}));
  const GoldenFile golden(file.path());
  EXPECT_THAT(golden.doubles("d"), ElementsAre(0.1, -2.5));
  EXPECT_THAT(golden.doubles("f"), ElementsAre(0.5, 3.0));
  EXPECT_THAT(golden.ints("i"), ElementsAre(-1, 0, 7));
  EXPECT_THAT(golden.shape("f"), ElementsAre(1, 2));
  EXPECT_THAT(golden.names(), ElementsAre("d", "f", "i"));
  EXPECT_THAT(golden.names("f"), ElementsAre("f"));
  EXPECT_TRUE(golden.contains("d"));
  EXPECT_FALSE(golden.contains("cases"));
  EXPECT_THAT(golden.words("cases"), ElementsAre("a", "b"));
  EXPECT_EQ(golden.number("lr"), 1e-3);
  EXPECT_TRUE(golden.has_text("lr"));
  EXPECT_FALSE(golden.has_text("d"));
}

TEST(GoldenFile, WrongQuestionsNameTheFileAndTheTensor) {
  const TemporaryFile file(R"({"__metadata__":{"word":"3x"},)"
                           R"("d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                           R"("i":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}})",
                           std::string(12, '\0'));
  const GoldenFile golden(file.path());
  EXPECT_THAT(error_of([&] { golden.doubles("x"); }), HasSubstr(file.path() + ": no tensor x"));
  EXPECT_THAT(error_of([&] { golden.shape("x"); }), HasSubstr("no tensor x"));
  EXPECT_THAT(error_of([&] { golden.doubles("i"); }), HasSubstr("i is I32"));
  EXPECT_THAT(error_of([&] { golden.ints("d"); }), HasSubstr("d is F64"));
  EXPECT_THAT(error_of([&] { golden.text("x"); }), HasSubstr("no metadata x"));
  EXPECT_THAT(error_of([&] { golden.number("word"); }), HasSubstr("'3x' is no number"));
}

TEST(GoldenFile, DamagedFilesAreRefused) {
  const auto error_for = [](const std::string& header, const std::string& data) {
    const TemporaryFile file(header, data);
    return error_of([&] { GoldenFile golden(file.path()); });
  };
  const std::string eight(8, '\0');
  EXPECT_EQ(error_for(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", eight), "no error");
  EXPECT_THAT(error_for("{", ""), HasSubstr("header"));
  EXPECT_THAT(error_for("[]", ""), HasSubstr("header"));
  EXPECT_THAT(error_for(R"({"d":{"shape":[1],"data_offsets":[0,8]}})", eight), HasSubstr("d: "));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}})", eight),
              HasSubstr("dtype F16"));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}})", eight),
              HasSubstr("dim -1"));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0]}})", eight),
              HasSubstr("no pair"));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}})", eight),
              HasSubstr("do not fit 16 bytes"));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", "1234"),
              HasSubstr("of 4 data bytes"));
  EXPECT_THAT(error_for(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", eight + "x"),
              HasSubstr("1 bytes belong to no tensor"));
  EXPECT_THAT(error_for(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                        R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                        "1234"),
              HasSubstr("overlap"));
  EXPECT_THAT(error_of([] { GoldenFile golden("/nowhere/x.safetensors"); }),
              HasSubstr("/nowhere/x.safetensors: cannot be opened"));
  const TemporaryFile long_header(uint64_t{100}, "{}");
  EXPECT_THAT(error_of([&] { GoldenFile golden(long_header.path()); }), HasSubstr("header of 100 bytes"));
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
    const int64_t k = static_cast<int64_t>(golden.number(name + ".k"));
    ASSERT_THAT(golden.shape(name + ".expert"), ElementsAre(logits_shape[0], k));
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
