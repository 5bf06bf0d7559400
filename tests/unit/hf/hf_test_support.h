// Small models of every class, whole in this process, and what they compute.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/hf/export.h>
#include <ziggurat/hf/import.h>
#include <ziggurat/infer/decoder.h>
#include <ziggurat/train/starting_point.h>

namespace ziggurat::hf {

// All weights of a folder in a model that is whole in this process; returns what was skipped.
inline std::vector<std::string> read_weights(const ModelFolder& folder, const Form& form,
                                             const model::ModelConfig& config, nn::ParamStore& store) {
  FolderWeights weights(folder, form, config, store);
  weights.check_values();
  for (const nn::ParamEntry& entry : store.entries()) {
    weights.read(entry, 0, entry.param.value.reshape({entry.numel}));
  }
  return weights.skipped();
}

}  // namespace ziggurat::hf

namespace ziggurat::test {

namespace fs = std::filesystem;
using model::FfnKind;
using model::ModelConfig;

inline ModelConfig small_model(std::vector<model::BlockRun> blocks) {
  ModelConfig c;
  c.name = "small";
  c.vocab_size = 40, c.vocab_multiple = 16, c.max_sequence = 32;
  c.hidden = 16, c.heads = 4, c.ffn_hidden = 24;
  c.blocks = std::move(blocks);
  return c;
}

inline ModelConfig llama_block(ModelConfig c) {
  c.norm = nn::NormKind::rms_norm, c.positions = model::Positions::rope;
  c.activation = nn::MlpKind::swiglu, c.bias = false, c.kv_heads = 2, c.rope_theta = 100;
  return c;
}

inline const std::vector<std::pair<std::string, ModelConfig>>& small_models() {
  static const auto models = [] {
    const model::BlockRun dense{2, {{}}}, moe{2, {{FfnKind::moe, 4}}}, mixed{1, {{}, {FfnKind::moe, 4}, {}}};
    std::vector<std::pair<std::string, ModelConfig>> all;
    all.emplace_back("gpt2", small_model({dense}));
    all.emplace_back("gpt2_untied_no_bias", small_model({dense}));
    all.back().second.tied_embeddings = all.back().second.bias = false;
    all.emplace_back("llama", llama_block(small_model({dense})));
    all.emplace_back("llama_bias", llama_block(small_model({dense})));
    all.back().second.bias = true, all.back().second.head_dim = 6;
    all.emplace_back("mixtral", llama_block(small_model({moe})));
    all.back().second.moe.top_k = 2, all.back().second.moe.renormalise = moe::Renormalise::chosen;
    all.emplace_back("qwen2_moe", llama_block(small_model({mixed})));
    all.emplace_back("ziggurat", small_model({mixed, {1, {{FfnKind::residual_moe, 2}}}}));
    all.emplace_back("ziggurat_gated", llama_block(small_model({{1, {{FfnKind::residual_moe, 3}, {}}}})));
    all.back().second.bias = true, all.back().second.tied_embeddings = false;
    all.emplace_back("qwen3", llama_block(small_model({dense})));
    all.back().second.qk_norm = nn::QkNorm::head, all.back().second.head_dim = 6;
    all.emplace_back("qwen3_moe", llama_block(small_model({mixed})));
    all.back().second.qk_norm = nn::QkNorm::head, all.back().second.moe.expert_hidden = 12;
    all.emplace_back("olmoe", llama_block(small_model({moe})));
    all.back().second.qk_norm = nn::QkNorm::width;
    all.emplace_back("ziggurat_qk_norm", small_model({mixed}));
    all.back().second.qk_norm = nn::QkNorm::width, all.back().second.kv_heads = 2;
    all.emplace_back("qwen2_moe_shared", llama_block(small_model({{1, {{FfnKind::residual_moe, 4}, {}}}})));
    all.back().second.moe.residual_mix = moe::ResidualMix::sigmoid;
    all.back().second.moe.coefficient_bias = false;
    all.back().second.moe.expert_hidden = 12, all.back().second.moe.residual_hidden = 20;
    all.emplace_back("ziggurat_widths", small_model({mixed, {1, {{FfnKind::residual_moe, 2}}}}));
    all.back().second.moe.residual_mix = moe::ResidualMix::sigmoid;
    all.back().second.moe.expert_hidden = 12, all.back().second.moe.residual_hidden = 20;
    all.emplace_back("ziggurat_openmoe", llama_block(small_model({{1, {{FfnKind::residual_moe, 4}, {}}}})));
    all.back().second.activation = nn::MlpKind::swiglu_linear;
    all.back().second.moe.residual_mix = moe::ResidualMix::sequential;
    all.back().second.attention_scale = 1, all.back().second.head_dim = 6;
    all.emplace_back("ziggurat_sigmoid", llama_block(small_model({{1, {{FfnKind::residual_moe, 6}, {}}}})));
    all.back().second.moe.score = moe::RouterScore::sigmoid, all.back().second.moe.top_k = 3;
    all.back().second.moe.renormalise = moe::Renormalise::chosen, all.back().second.moe.weight_scale = 2.5;
    all.back().second.moe.expert_groups = 3, all.back().second.moe.chosen_groups = 2;
    all.back().second.moe.balance_bias = true, all.back().second.moe.residual_mix = moe::ResidualMix::sum;
    all.emplace_back("mixtral_window", llama_block(small_model({moe})));
    all.back().second.moe.top_k = 2, all.back().second.moe.renormalise = moe::Renormalise::chosen;
    all.back().second.window = 3;
    all.emplace_back("ziggurat_window", small_model({dense}));
    all.back().second.window = 3;
    return all;
  }();
  return models;
}

class WholeModel {
 public:
  explicit WholeModel(const ModelConfig& config)
      : config_(model::fit_to_ranks(config, 1)),
        self_(make_self_communicator()),
        groups_(*self_, ParallelPlan(1, config_.expert_parallel_sizes())),
        store_({.compute = DType::f32, .trainable = false}),
        gpt_(config_, store_, groups_) {
    store_.finalize();
  }

  // Every value is random, so that each one matters.
  void randomise() {
    for (const nn::ParamEntry& entry : store_.entries()) {
      const Philox rng(7, Purpose::test, hash_name(entry.spec.name));
      float* values = entry.param.value.data<float>();
      for (int64_t i = 0; i < entry.numel; ++i) values[i] = rng.uniform(static_cast<uint64_t>(i)) - 0.5f;
    }
  }

  std::vector<float> logits(const std::vector<int32_t>& tokens) {
    store_.values_changed();
    infer::Decoder decoder(gpt_, 1, static_cast<int64_t>(tokens.size()));
    std::vector<float> all;
    const int32_t zero = 0;
    for (const int32_t token : tokens) {
      decoder.read({&zero, 1}, {&token, 1}, {&zero, 1}, [&](size_t, const Tensor& row) {
        all.insert(all.end(), row.data<float>(), row.data<float>() + config_.vocab_size);
      });
    }
    return all;
  }

  nn::ParamStore& store() { return store_; }
  const nn::ParamStore& store() const { return store_; }

  // A checkpoint of it; `folder` must not hold one.
  void save(const std::string& folder) {
    train::RunConfig run;
    run.model = config_;
    run.data.train = "synthetic";
    const auto values = [&](const nn::ParamEntry& entry, int64_t first, const Tensor& to) {
      const Tensor master = entry.param.value.reshape({entry.numel});
      copy(master.rows(first, first + to.numel()), to);
    };
    train::save_starting_point({run, store_, values}, folder, *self_);
  }

 private:
  ModelConfig config_;
  std::unique_ptr<Communicator> self_;
  ProcessGroups groups_;
  nn::ParamStore store_;
  model::Gpt gpt_;
};

class HfTest : public ::testing::Test {
 protected:
  HfTest() : folder_(fs::temp_directory_path() / fmt::format("ziggurat_hf_{}", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~HfTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string checkpoint_of(const ModelConfig& config) {
    const std::string to = path(fmt::format("checkpoint_{}", ++checkpoints_));
    WholeModel whole(config);
    whole.randomise();
    whole.save(to);
    return to;
  }

  static hf::Provenance provenance() {
    hf::Provenance from;
    from.run = "test", from.config = "name: test\n";
    return from;
  }

  static hf::Exported export_to(const std::string& output, const std::string& checkpoint,
                                const ModelConfig& config, const hf::ExportOptions& options = {},
                                const Tokenizer* tokenizer = nullptr) {
    CheckpointReader reader(checkpoint);
    const auto self = make_self_communicator();
    return hf::export_model(reader, config, provenance(), tokenizer, output, options, *self);
  }

  // The message of the Error of this kind that `action` throws.
  template <class F>
  static std::string error_of(ErrorKind kind, F&& action) {
    try {
      action();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  static std::string text_of(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    EXPECT_TRUE(in.good()) << file;
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  fs::path folder_;
  int checkpoints_ = 0;
};

}  // namespace ziggurat::test
