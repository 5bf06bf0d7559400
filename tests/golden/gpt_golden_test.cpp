// Six training steps of tiny models against an independent PyTorch program in float64: logits, routing,
// gradients, losses, gradient norms and final weights (scripts/golden/make_gpt_goldens.py).
#include <algorithm>
#include <cmath>

#include "tests/support/golden_file.h"
#include "tests/support/op_test.h"
#include "tests/support/tiny_run.h"
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

model::BlockSpec block_of(const std::string& word) {  // dense, moe:E or residual_moe:E
  const size_t colon = word.find(':');
  if (colon == std::string::npos) return {};
  return {.ffn = word.starts_with("residual") ? model::FfnKind::residual_moe : model::FfnKind::moe,
          .experts = std::stoll(word.substr(colon + 1))};
}

model::ModelConfig model_of(const GoldenFile& file) {
  model::ModelConfig c;
  c.vocab_size = file.whole("vocabulary");
  c.vocab_multiple = 1;
  c.max_sequence = file.whole("sequence");
  c.hidden = file.whole("width");
  c.heads = file.whole("heads");
  if (file.has_text("kv_heads")) c.kv_heads = file.whole("kv_heads");
  if (file.has_text("qk_norm")) {
    c.qk_norm = file.text("qk_norm") == "head" ? nn::QkNorm::head : nn::QkNorm::width;
  }
  c.ffn_hidden = file.whole("hidden");
  c.norm_eps = file.number("norm_eps");
  c.rope_theta = file.number("rope_theta");
  if (file.text("modern") == "True") {
    c.norm = nn::NormKind::rms_norm;
    c.activation = nn::MlpKind::swiglu;
    c.positions = model::Positions::rope;
    c.bias = false;
  }
  c.moe.top_k = file.whole("top_k");
  c.moe.drop = moe::DropPolicy::position;
  c.moe.capacity_factor = file.number("capacity_factor");
  c.moe.min_capacity = file.whole("min_capacity");
  const auto is = [&](const char* name) { return file.has_text(name); };
  c.moe.renormalise =
      c.moe.top_k == 1 || is("raw_weights") ? moe::Renormalise::none : moe::Renormalise::survivors;
  c.moe.balance_coefficient = file.number("aux_coefficient");
  if (is("four_matrices")) c.activation = nn::MlpKind::swiglu_linear;
  if (is("sequential")) c.moe.residual_mix = moe::ResidualMix::sequential;
  if (is("summed")) c.moe.residual_mix = moe::ResidualMix::sum;
  if (is("attention_scale")) c.attention_scale = file.number("attention_scale");
  if (is("head_dim")) c.head_dim = file.whole("head_dim");
  if (is("without_top_k")) c.moe.capacity_rule = moe::CapacityRule::without_top_k;
  if (is("all_choices")) c.moe.balance_count = moe::BalanceCount::all_choices;
  if (is("group_tokens")) {
    c.moe.group_tokens = file.whole("group_tokens");
    c.moe.balance_scope = moe::BalanceScope::group;
  }
  if (is("z_coefficient")) c.moe.z_coefficient = file.number("z_coefficient");
  if (is("dropless")) c.moe.drop = moe::DropPolicy::none;
  if (is("sigmoid")) c.moe.score = moe::RouterScore::sigmoid;
  if (is("weight_scale")) c.moe.weight_scale = file.number("weight_scale");
  if (is("expert_groups")) c.moe.expert_groups = file.whole("expert_groups");
  if (is("chosen_groups")) c.moe.chosen_groups = file.whole("chosen_groups");
  if (is("bias_rate")) {
    c.moe.balance_bias = true;
    c.moe.balance_bias_rate = file.number("bias_rate");
  }
  if (is("window")) c.window = file.whole("window");
  for (const std::string& word : file.words("layers")) c.blocks.push_back({1, {block_of(word)}});
  return c;
}

TinyRunOptions options_of(const GoldenFile& file, DType dtype) {
  TinyRunOptions options;
  options.model = model_of(file);
  options.compute = dtype;
  options.optimizer.lr = file.number("lr");
  options.optimizer.beta1 = file.number("beta1");
  options.optimizer.beta2 = file.number("beta2");
  options.optimizer.eps = file.number("adam_eps");
  options.optimizer.weight_decay = file.number("weight_decay");
  options.optimizer.clip_grad = file.number("clip");
  options.micro_batches = file.whole("micro_batches");
  options.sequences = file.whole("batch");
  options.length = file.whole("sequence");
  if (file.has_text("prefixes")) {
    for (const std::string& word : file.words("prefixes")) options.prefixes.push_back(std::stoi(word));
  }
  if (file.has_text("z_loss")) options.objective.z_loss = file.number("z_loss");
  if (file.has_text("label_smoothing")) options.objective.label_smoothing = file.number("label_smoothing");
  if (!file.has_text("packed")) return options;
  options.eod = static_cast<int32_t>(file.whole("eod"));
  for (const std::string& word : file.words("packed")) {
    (word == "positions" ? options.reset_positions : options.reset_attention) = true;
  }
  return options;
}

// Roundings along the longest path through the model, forward and back: every norm and every product adds up
// a row, and a weight's gradient adds up the tokens of a step.
int64_t roundings(const TinyRunOptions& o) {
  const model::ModelConfig& c = o.model;
  const int64_t qk_norm = c.qk_norm == nn::QkNorm::none ? 0 : c.hidden;
  const int64_t attention =
      3 * c.hidden + qk_norm + c.head_width() + o.length;     // norm, qkv, scores, values, out
  const int64_t feed_forward = 2 * c.hidden + c.ffn_width();  // norm, up, down
  const int64_t head = 2 * c.hidden + c.vocab_size;           // norm, product, softmax
  const auto layers = static_cast<int64_t>(c.layers().size());
  return 2 * (layers * (attention + feed_forward) + head) + o.samples_per_step() * o.length;
}

class GptGolden : public testing::TestWithParam<std::tuple<const char*, DType>> {
 protected:
  DType dtype() const { return std::get<1>(GetParam()); }

  OneThread one_thread_;  // waking threads for tiny products takes nearly all the time
  GoldenFile file_ = GoldenFile::committed(std::get<0>(GetParam()));
  TinyRunOptions options_ = options_of(file_, dtype());
  double tolerance_ = random_walk(dtype(), roundings(options_));  // relative
  std::unique_ptr<Communicator> world_ = make_self_communicator();
  TinyRun run_{options_, *world_};

  void SetUp() override {
    ASSERT_EQ(run_.params().entries().size(), file_.names("init.").size());
    load_parameters(run_.params(), file_, "init.");
    const std::vector<int64_t> all = file_.ints("tokens");
    tokens_.assign(all.begin(), all.end());
  }

  std::span<const int32_t> samples_of(int64_t step) const {
    const int64_t n = options_.samples_per_step() * (options_.length + 1);
    return std::span(tokens_).subspan(static_cast<size_t>(step * n), static_cast<size_t>(n));
  }

 private:
  std::vector<int32_t> tokens_;
};

TEST_P(GptGolden, LogitsAndRoutingOfTheFirstMicroBatch) {
  const std::vector<double> got = run_.logits(samples_of(0), 0), want = file_.doubles("logits");
  expect_within(got, want, tolerance_ * largest(want), "logits");

  EXPECT_EQ(run_.moe_stats().size(), file_.names("route.").size() / 6);
  const std::vector<moe::MoeSums> sums = run_.moe_sums();
  for (size_t layer = 0; layer < sums.size(); ++layer) {
    const moe::MoeSums& stats = sums[layer];
    const std::string route = fmt::format("route.{}.", run_.moe_stats()[layer]->layer());
    const std::vector<int64_t> expert = file_.ints(route + "expert"), kept = file_.ints(route + "kept");
    std::vector<int64_t> chosen(stats.counts.size()), used(stats.counts.size());
    for (size_t i = 0; i < expert.size(); ++i) {
      chosen.at(static_cast<size_t>(expert[i])) += 1;
      used.at(static_cast<size_t>(expert[i])) += kept[i];
    }
    EXPECT_EQ(stats.counts_before, chosen) << route;
    EXPECT_EQ(stats.counts, used) << route;
    EXPECT_NEAR(stats.balance, file_.doubles(route + "aux").at(0), tolerance_) << route;
  }
}

TEST_P(GptGolden, GradientsOfTheFirstStep) {
  run_.step(samples_of(0));
  for (const nn::ParamEntry& entry : run_.params().entries()) {
    const std::vector<double> want = file_.doubles("grad." + entry.spec.name);
    expect_within(to_doubles(entry.param.grad), want, tolerance_ * largest(want), entry.spec.name);
  }
}

TEST_P(GptGolden, LossesNormsAndWeightsOfSixSteps) {
  const std::vector<double> ce = file_.doubles("loss.ce"), aux = file_.doubles("loss.aux"),
                            total = file_.doubles("loss.total"), norm = file_.doubles("grad_norm");
  const int64_t steps = file_.whole("steps");
  int64_t dropped = 0;
  for (int64_t s = 0; s < steps; ++s) {
    const TinyStep got = run_.step(samples_of(s));
    const auto i = static_cast<size_t>(s);
    EXPECT_NEAR(got.cross_entropy / ce[i], 1, tolerance_) << "step " << s;
    double auxiliary = file_.number("aux_coefficient") * aux[i];
    if (file_.has_text("z_coefficient")) {
      auxiliary += file_.number("z_coefficient") * file_.doubles("loss.z")[i];
    }
    if (file_.has_text("z_loss")) auxiliary += file_.doubles("loss.head")[i];
    EXPECT_NEAR(got.auxiliary, auxiliary, tolerance_) << "step " << s;
    EXPECT_NEAR(got.total() / total[i], 1, tolerance_) << "step " << s;
    EXPECT_NEAR(got.grad_norm / norm[i], 1, tolerance_) << "step " << s;
    dropped += got.dropped;
  }
  EXPECT_EQ(dropped, file_.whole("dropped_choices"));

  const double lr = file_.number("lr");
  for (const nn::ParamEntry& entry : run_.params().entries()) {
    const std::vector<double> want = file_.doubles("final." + entry.spec.name),
                              grad = file_.doubles("grad." + entry.spec.name),
                              got = to_doubles(entry.param.value);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      // An update is about lr g / |g|: the relative error of the element's gradient times lr, at most 2 lr.
      // (So the key part of attention.qkv.bias, whose gradient is nothing but rounding, may end anywhere near
      // its start.) The new weight is rounded in every step, and once more, to f32, in the file.
      const double update =
          lr * std::min(2.0, tolerance_ * largest(grad) / std::max(std::abs(grad[i]), 1e-300));
      const double rounding = (dtype() == DType::f64 ? 0x1p-53 : 0x1p-24) * static_cast<double>(steps);
      const double tolerance =
          static_cast<double>(steps) * update + (rounding + 0x1p-24) * std::max(std::abs(want[i]), lr);
      ASSERT_NEAR(got[i], want[i], tolerance) << entry.spec.name << " element " << i;
    }
  }
}

TEST(GoldenSupport, MisuseIsRefused) {
  const GoldenFile file = GoldenFile::committed("gpt_dense");
  const auto world = make_self_communicator();
  TinyRunOptions options = options_of(file, DType::f32);
  TinyRun run(options, *world);
  const std::vector<int32_t> too_few(10);
  EXPECT_THROW(run.step(too_few), Error);
  EXPECT_THROW(load_parameters(run.params(), file, "final"), Error) << "no such tensors";
  EXPECT_THROW(held(run.params().entries().front(), {1.0, 2.0}), Error) << "too few elements";
  options.reproducible = Reproducible::strict;
  options.lanes = 4;
  EXPECT_THROW(TinyRun(options, *world), Error) << "two micro-batches in four lanes";
}

INSTANTIATE_TEST_SUITE_P(
    Models, GptGolden,
    testing::Combine(testing::Values("gpt_dense", "gpt_moe_top1", "gpt_moe_top2", "gpt_pr_moe", "gpt_modern",
                                     "gpt_packed", "gpt_packed_modern", "gpt_qk_norm_head",
                                     "gpt_qk_norm_width", "gpt_openmoe", "gpt_sigmoid", "gpt_prefixes"),
                     testing::Values(DType::f64, DType::f32)),
    [](const auto& test) {
      return fmt::format("{}_{}", std::get<0>(test.param), to_string(std::get<1>(test.param)));
    });

}  // namespace
}  // namespace ziggurat::test
