#include "hf/layout.h"

#include <ziggurat/comm/communicator.h>
#include <ziggurat/model/gpt.h>

namespace ziggurat::hf {

using model::BlockSpec;
using model::FfnKind;
using model::ModelConfig;

namespace {

class Builder {
 public:
  Builder(const Form& form, const ModelConfig& config)
      : form_(form), config_(config), ours_(parameters_of(config)) {}

  std::vector<FolderTensor> build() {
    switch (form_.model_class) {
      case ModelClass::gpt2:
        gpt2();
        break;
      case ModelClass::llama:
      case ModelClass::mixtral:
      case ModelClass::qwen2_moe:
      case ModelClass::qwen3:
      case ModelClass::qwen3_moe:
      case ModelClass::olmoe:
        llama_like();
        break;
      case ModelClass::ziggurat:
        ziggurat();
        break;
    }
    return std::move(tensors_);
  }

 private:
  static constexpr int64_t kNoExpert = -1;
  struct Rows {
    int64_t begin = 0, end = 0;
  };

  // ---- The classes

  void gpt2() {
    transposed_ = true;  // its Conv1D keeps weights as [in, out]
    vocabulary("transformer.wte", "embed.token");
    whole("transformer.wpe.weight", "embed.position.weight");
    for (int64_t i = 0; i < layers(); ++i) {
      const std::string there = fmt::format("transformer.h.{}.", i), ours = fmt::format("blocks.{}.", i);
      norm(there + "ln_1", ours + "norm1");
      linear(there + "attn.c_attn", ours + "attention.qkv", true);
      linear(there + "attn.c_proj", ours + "attention.out", true);
      norm(there + "ln_2", ours + "norm2");
      linear(there + "mlp.c_fc", ours + "mlp.up", true);
      linear(there + "mlp.c_proj", ours + "mlp.down", true);
    }
    norm("transformer.ln_f", "final_norm");
    head();
  }

  void llama_like() {
    const int64_t q = config_.heads * config_.head_width();
    const int64_t kv = config_.key_value_heads() * config_.head_width();
    vocabulary("model.embed_tokens", "embed.token");
    const std::vector<BlockSpec> blocks = config_.layers();
    for (int64_t i = 0; i < layers(); ++i) {
      const std::string there = fmt::format("model.layers.{}.", i), ours = fmt::format("blocks.{}.", i);
      norm(there + "input_layernorm", ours + "norm1");
      const std::string qkv = ours + "attention.qkv";
      linear(there + "self_attn.q_proj", qkv, form_.qkv_bias, Rows{0, q});
      linear(there + "self_attn.k_proj", qkv, form_.qkv_bias, Rows{q, q + kv});
      linear(there + "self_attn.v_proj", qkv, form_.qkv_bias, Rows{q + kv, q + 2 * kv});
      linear(there + "self_attn.o_proj", ours + "attention.out", form_.out_bias);
      qk_norm(there + "self_attn.", ours + "attention.");
      norm(there + "post_attention_layernorm", ours + "norm2");
      const BlockSpec& block = blocks[static_cast<size_t>(i)];
      if (block.ffn == FfnKind::dense) {
        linear(there + "mlp.gate_proj", ours + "mlp.gate", form_.mlp_bias);
        linear(there + "mlp.up_proj", ours + "mlp.up", form_.mlp_bias);
        linear(there + "mlp.down_proj", ours + "mlp.down", form_.mlp_bias);
      } else {
        llama_like_experts(there, ours, block);
      }
    }
    norm("model.norm", "final_norm");
    head();
  }

  void llama_like_experts(const std::string& there, const std::string& layer, const BlockSpec& spec) {
    const std::string ours = layer + "moe.";
    const bool mixtral = form_.model_class == ModelClass::mixtral;
    const std::string block = there + (mixtral ? "block_sparse_moe." : "mlp.");
    whole(block + "gate.weight", ours + "router.weight");
    for (int64_t e = 0; e < spec.experts; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", block, e);
      linear(expert + (mixtral ? "w1" : "gate_proj"), ours + "experts.gate", false, e);
      linear(expert + (mixtral ? "w3" : "up_proj"), ours + "experts.up", false, e);
      linear(expert + (mixtral ? "w2" : "down_proj"), ours + "experts.down", false, e);
    }
    if (form_.model_class != ModelClass::qwen2_moe) return;
    if (spec.ffn == FfnKind::residual_moe) {
      linear(block + "shared_expert.gate_proj", layer + "mlp.gate", false);
      linear(block + "shared_expert.up_proj", layer + "mlp.up", false);
      linear(block + "shared_expert.down_proj", layer + "mlp.down", false);
      return whole(block + "shared_expert_gate.weight", ours + "coefficient.weight");
    }
    const int64_t shared = form_.shared_expert_width, hidden = config_.hidden;
    zeros(block + "shared_expert.gate_proj.weight", {shared, hidden});
    zeros(block + "shared_expert.up_proj.weight", {shared, hidden});
    zeros(block + "shared_expert.down_proj.weight", {hidden, shared});
    zeros(block + "shared_expert_gate.weight", {1, hidden});
  }

  void ziggurat() {
    vocabulary("model.embed_tokens", "embed.token");
    if (config_.positions == model::Positions::learned) {
      whole("model.embed_positions.weight", "embed.position.weight");
    }
    const std::vector<BlockSpec> blocks = config_.layers();
    for (int64_t i = 0; i < layers(); ++i) {
      const std::string there = fmt::format("model.layers.{}.", i), ours = fmt::format("blocks.{}.", i);
      norm(there + "norm1", ours + "norm1");
      linear(there + "attention.qkv", ours + "attention.qkv", config_.bias);
      linear(there + "attention.out", ours + "attention.out", config_.bias);
      qk_norm(there + "attention.", ours + "attention.");
      norm(there + "norm2", ours + "norm2");
      const BlockSpec& block = blocks[static_cast<size_t>(i)];
      if (block.ffn != FfnKind::moe) mlp(there + "mlp.", ours + "mlp.", kNoExpert);
      if (ours_.contains(ours + "norm3.weight")) norm(there + "norm3", ours + "norm3");
      if (block.ffn == FfnKind::dense) continue;
      whole(there + "moe.router.weight", ours + "moe.router.weight");
      if (config_.moe.balance_bias) whole(there + "moe.balance_bias", ours + "moe.router.balance_bias");
      // Not called `experts`: some runtimes replace children of that name by gated SiLU experts.
      for (int64_t e = 0; e < block.experts; ++e) {
        mlp(fmt::format("{}moe.expert_list.{}.", there, e), ours + "moe.experts.", e);
      }
      for (const char* part : {"moe.coefficient.weight", "moe.coefficient.bias"}) {
        if (ours_.contains(ours + part)) whole(there + part, ours + part);
      }
    }
    norm("model.norm", "final_norm");
    head();
  }

  void mlp(const std::string& there, const std::string& ours, int64_t expert) {
    for (const char* part : {"gate", "value", "up", "down"}) {
      if (ours_.contains(ours + part + ".weight")) linear(there + part, ours + part, config_.bias, expert);
    }
  }

  // ---- Their parts

  void vocabulary(const std::string& there, const std::string& ours) {
    add(there + ".weight", ours + ".weight", {0, config_.vocab_size}, {config_.vocab_size, config_.hidden},
        false);
  }
  void head() {
    if (!config_.tied_embeddings) vocabulary("lm_head", "head");
  }
  void norm(const std::string& there, const std::string& ours) {
    whole(there + ".weight", ours + ".weight");
    if (config_.norm == nn::NormKind::layer_norm) whole(there + ".bias", ours + ".bias");
  }
  void qk_norm(const std::string& there, const std::string& ours) {
    if (config_.qk_norm == nn::QkNorm::none) return;
    whole(there + "q_norm.weight", ours + "q_norm.weight");
    whole(there + "k_norm.weight", ours + "k_norm.weight");
  }
  void linear(const std::string& there, const std::string& ours, bool bias) {
    linear(there, ours, bias, Rows{0, ours_.at(ours + ".weight")[0]});
  }
  void linear(const std::string& there, const std::string& ours, bool bias, Rows out) {
    const int64_t rows = out.end - out.begin, in = ours_.at(ours + ".weight")[1];
    add(there + ".weight", ours + ".weight", out, transposed_ ? Shape{in, rows} : Shape{rows, in},
        transposed_);
    if (bias) add(there + ".bias", ours + ".bias", out, {rows}, false);
  }
  // One expert of a stack [experts, out, in].
  void linear(const std::string& there, const std::string& ours, bool bias, int64_t expert) {
    if (expert == kNoExpert) return linear(there, ours, bias);
    const Shape& stack = ours_.at(ours + ".weight");
    const Rows row{expert, expert + 1};
    add(there + ".weight", ours + ".weight", row, {stack[1], stack[2]}, false);
    if (bias) add(there + ".bias", ours + ".bias", row, {stack[1]}, false);
  }
  void whole(const std::string& there, const std::string& ours) {
    const Shape& shape = ours_.at(ours);
    add(there, ours, {0, shape[0]}, shape, false);
  }
  void zeros(const std::string& there, Shape shape) { tensors_.push_back({there, shape, ""}); }

  void add(const std::string& there, const std::string& ours, Rows rows, Shape shape, bool transposed) {
    if (!ours_.contains(ours)) return zeros(there, shape);  // a bias that the model lacks
    tensors_.push_back({there, shape, ours, rows.begin, rows.end, transposed});
  }

  int64_t layers() const { return static_cast<int64_t>(config_.layers().size()); }

  const Form& form_;
  const ModelConfig& config_;
  const std::map<std::string, Shape> ours_;
  bool transposed_ = false;
  std::vector<FolderTensor> tensors_;
};

}  // namespace

std::map<std::string, Shape> parameters_of(const ModelConfig& config) {
  const ModelConfig whole = model::fit_to_ranks(config, 1);
  const auto self = make_self_communicator();
  const ProcessGroups groups(*self, ParallelPlan(1, whole.expert_parallel_sizes()));
  nn::ParamStore store({.device = Device::meta, .trainable = false});
  const model::Gpt gpt(whole, store, groups);
  std::map<std::string, Shape> shapes;
  for (const nn::ParamEntry& entry : store.entries()) shapes[entry.spec.name] = entry.spec.global_shape;
  return shapes;
}

std::vector<FolderTensor> layout(const Form& form, const ModelConfig& config) {
  return Builder(form, config).build();
}

std::string name_in_trunk(const std::string& name) {
  for (const std::string prefix : {"transformer.", "model."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

}  // namespace ziggurat::hf
