// Every op has its full set of files: reads the tree at run time, so a new op cannot be forgotten here.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/op_cases.h"
#include "tests/support/source_dir.h"
#include <ziggurat/kernels/adafactor.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/kernels/clip.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/kernels/device_roof.h>
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/kernels/distillation.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/kernels/expert_blocks.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/kernels/gated_add.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/label_smoothing.h>
#include <ziggurat/kernels/layer_norm.h>
#include <ziggurat/kernels/linear.h>
#include <ziggurat/kernels/lion.h>
#include <ziggurat/kernels/micro_batch_numbers.h>
#include <ziggurat/kernels/mix.h>
#include <ziggurat/kernels/muon.h>
#include <ziggurat/kernels/own_tokens.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/kernels/qk_norm.h>
#include <ziggurat/kernels/random_normal.h>
#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/kernels/rope.h>
#include <ziggurat/kernels/router.h>
#include <ziggurat/kernels/router_logits.h>
#include <ziggurat/kernels/swiglu.h>
#include <ziggurat/kernels/weight_average.h>

namespace ziggurat {
namespace {

const std::filesystem::path kRoot = test::source_dir();

// Ops that run on the CPU only so far, and why each may. An op leaves this list when its .cu arrives.
const std::map<std::string, std::string>& without_cuda_kernel() {
  static const std::map<std::string, std::string> reasons = {
      {"add", "runs elementwise's kernel"},
      {"alike_ranks", "runs dispatch's kernels, and calls the communicator"},
      {"all_to_all", "no kernel: calls the communicator"},
      {"choose_rows", "runs dispatch's kernel"},
      {"dropout_add", "runs dropout's kernel"},
      {"multiply", "runs elementwise's kernel"},
      {"shard_rows", "runs elementwise's kernels, and calls the communicator"},
  };
  return reasons;
}

// Ops whose gradients expect_gradients cannot check, and the test of their own that does; or that there is
// none.
const std::map<std::string, std::string>& own_gradient_check() {
  static const std::map<std::string, std::string> tests = {
      {"alike_ranks", "RefusesTraining"},                      // inference only
      {"all_to_all", "RowsArriveAndGradientsReturn"},          // moves rows between ranks, changes no value
      {"cached_attention", "RefusesTraining"},                 // inference only
      {"choose_rows", "RefusesTraining"},                      // inference only
      {"cross_entropy", "GradientsEqualFiniteDifferences"},    // its loss is no Var
      {"distillation", "GradientsEqualFiniteDifferences"},     // nor is this one's
      {"label_smoothing", "GradientsEqualFiniteDifferences"},  // nor is this one's
  };
  return tests;
}

std::vector<std::string> ops() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "include/ziggurat/ops")) {
    if (entry.path().extension() == ".h") names.push_back(entry.path().stem());
  }
  return names;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

bool has_cuda_kernel(const std::string& op) {
  const auto exists = [&](const char* suffix) {
    return std::filesystem::exists(kRoot / "kernels/cuda" / (op + suffix));
  };
  return exists(".cu") || exists(".cpp");  // .cpp: of a library's products and other kernels
}

TEST(OpCoverage, EveryOpHasAnImplementationAndATestWithReferenceAndGradientCheck) {
  ASSERT_FALSE(ops().empty());
  for (const std::string& op : ops()) {
    EXPECT_TRUE(std::filesystem::exists(kRoot / "src/ops" / (op + ".cpp"))) << op << " has no src/ops file";
    const std::string test = read(kRoot / "tests/ops" / (op + "_test.cpp"));
    EXPECT_NE(test, "") << op << " has no tests/ops/" << op << "_test.cpp";
    const auto own = own_gradient_check().find(op);
    const std::string check = own == own_gradient_check().end() ? "expect_gradients(" : own->second;
    EXPECT_NE(test.find(check), std::string::npos) << op << " has no gradient check";
    EXPECT_NE(test.find("expect_close("), std::string::npos) << op << " has no naive reference";
  }
}

// Ops that are no case of their own in op_cases(), which tests/ops/bf16_test.cpp holds against f64 on the
// same rounded values, forward and backward: where that is done instead, or why not.
const std::map<std::string, std::string>& no_bf16_case() {
  static const std::map<std::string, std::string> reasons = {
      {"alike_ranks", "inference only"},
      {"all_to_all", "moves rows between ranks, changes no value"},
      {"cached_attention", "inference only"},
      {"choose_rows", "inference only"},
      {"cross_entropy", "its loss is no Var: cross_entropy_test.cpp, LossAndGradientsEqualNaiveReference"},
      {"distillation", "its loss is no Var: distillation_test.cpp"},
      {"dropout_add", "a part of dropout's case"},
      {"label_smoothing", "its loss is no Var: label_smoothing_test.cpp"},
      {"router", "its logits are f32 or f64"},
      {"shard_rows", "needs ranks: shard_rows_test.cpp"},
  };
  return reasons;
}

TEST(OpCoverage, EveryOpsBf16GradientsHaveAReferenceInF64) {
  const auto& cases = test::op_cases();
  for (const std::string& op : ops()) {
    const bool is_case = std::any_of(cases.begin(), cases.end(),
                                     [&](const test::OpCase& c) { return c.name.starts_with(op + " "); });
    EXPECT_NE(is_case, no_bf16_case().contains(op)) << op << ": tests/support/op_cases.cpp";
  }
}

TEST(OpCoverage, EveryOpHasACudaKernelOrADeclaredReason) {
  for (const std::string& op : ops()) {
    EXPECT_TRUE(has_cuda_kernel(op) || without_cuda_kernel().contains(op))
        << op << " has no kernels/cuda/" << op << ".cu or .cpp: write it, or declare in this test why not";
  }
}

// What the dispatch reads (runtime/kernel_support.h) is what there is.
template <class Kernels>
void expect_declared() {
  const bool declared = kDeclared<Kernels, Device::cuda, float> || kDeclared<Kernels, Device::cuda, bf16> ||
                        kDeclared<Kernels, Device::cuda, double>;
  EXPECT_EQ(declared, has_cuda_kernel(Kernels::kName))
      << Kernels::kName << ": kernels/cuda and the contract in include/ziggurat/kernels disagree";
}
template <class... Kernels>
void expect_all_declared() {
  (expect_declared<Kernels>(), ...);
}

TEST(OpCoverage, KernelsDeclareWhereTheyExist) {
  expect_all_declared<
      kernels::AdafactorKernels, kernels::LionKernels, kernels::MuonKernels, kernels::WeightAverageKernels,
      kernels::AdamWKernels, kernels::AttentionKernels, kernels::BiasActivationKernels,
      kernels::CachedAttentionKernels, kernels::ClipKernels, kernels::CrossEntropyKernels,
      kernels::DeviceRoofKernels, kernels::DispatchKernels, kernels::DistillationKernels,
      kernels::DropoutKernels, kernels::ElementwiseKernels, kernels::EmbeddingKernels,
      kernels::ExpertBlocksKernels, kernels::FewRowsKernels, kernels::GatedAddKernels, kernels::GemmKernels,
      kernels::GroupedLinearKernels, kernels::LabelSmoothingKernels, kernels::LayerNormKernels,
      kernels::LinearKernels, kernels::MixKernels, kernels::OwnTokensKernels, kernels::PackedLinearKernels,
      kernels::PanelLinearKernels, kernels::WeightProductKernels, kernels::QkNormKernels,
      kernels::RandomNormalKernels, kernels::RmsNormKernels, kernels::RopeKernels, kernels::RouterKernels,
      kernels::RouterLogitsKernels, kernels::SumOfSquaresKernels, kernels::SwigluKernels>();
}

TEST(OpCoverage, TheListOfReasonsIsNotStale) {
  const std::vector<std::string> names = ops();
  for (const auto& [op, reason] : without_cuda_kernel()) {
    EXPECT_NE(std::find(names.begin(), names.end(), op), names.end()) << op << " is no op";
    EXPECT_FALSE(has_cuda_kernel(op)) << op << " has a CUDA kernel now: take it off the list";
  }
}

}  // namespace
}  // namespace ziggurat
