// The entries of config.json, one table for each class, which a writer and a reader go through: size() is a
// whole number of at least 1, value() may be 0.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/hf/form.h>

namespace ziggurat::hf {

// What the entries are about: the model with its derived sizes written out, and its layers as classes count
// them.
struct Described {
  model::ModelConfig model;
  Form form = {};
  int64_t layers = 0, experts = 0;
  bool renormalised = false;
  int64_t sparse_step = 1;                  // every so many layers there are experts ...
  std::vector<int64_t> dense_layers = {};   // ... but in these
  std::vector<std::string> ffn_kinds = {};  // of each layer, in our words
  std::vector<int64_t> ffn_experts = {};    // of each layer
};

Described described(const Form& form, const model::ModelConfig& config);
// The model, on top of `base`; with_shared_expert: see from_config_json. Throws Error(checkpoint) naming
// `where`.
model::ModelConfig model_of(Described described, bool with_shared_expert, const model::ModelConfig& base,
                            const std::string& where);

template <class T>
using Words = std::vector<std::pair<const char*, T>>;  // the first of several words for one value is written

// The names are those of the classes' configurations in transformers, and so are defaults.

template <class V>
void gpt2(V& v, Described& d) {
  model::ModelConfig& m = d.model;
  v.size("vocab_size", m.vocab_size);
  v.size("n_positions", m.max_sequence);
  v.repeated("n_ctx", m.max_sequence);  // llama.cpp's converter asks for the older name
  v.size("n_embd", m.hidden);
  v.size("n_layer", d.layers);
  v.size("n_head", m.heads);
  v.or_derived("n_inner", m.ffn_hidden);
  v.word("activation_function", m.activation,
         Words<nn::MlpKind>{{"gelu_new", nn::MlpKind::gelu_tanh},
                            {"gelu_pytorch_tanh", nn::MlpKind::gelu_tanh},
                            {"gelu", nn::MlpKind::gelu_erf}});
  v.value("layer_norm_epsilon", m.norm_eps, 1e-5);
  v.value("embd_pdrop", m.dropout.embedding, 0.1);
  v.value("attn_pdrop", m.dropout.attention, 0.1);
  v.value("resid_pdrop", m.dropout.hidden, 0.1);
  v.value("initializer_range", m.init_std, 0.02);
  v.value("tie_word_embeddings", m.tied_embeddings, true);
  v.fixed("scale_attn_weights", true);
  v.fixed("scale_attn_by_inverse_layer_idx", false);
  v.fixed("add_cross_attention", false);
}

template <class V>
void llama_block(V& v, Described& d, double default_theta, double default_eps) {
  model::ModelConfig& m = d.model;
  v.size("vocab_size", m.vocab_size);
  v.size("max_position_embeddings", m.max_sequence);
  v.size("hidden_size", m.hidden);
  v.size("num_hidden_layers", d.layers);
  v.size("num_attention_heads", m.heads);
  v.word("hidden_act", m.activation,
         Words<nn::MlpKind>{{"silu", nn::MlpKind::swiglu}, {"swish", nn::MlpKind::swiglu}});
  v.value("rms_norm_eps", m.norm_eps, default_eps);
  v.rope(m.rope_theta, default_theta);
  v.value("attention_dropout", m.dropout.attention, 0.0);
  v.value("initializer_range", m.init_std, 0.02);
  v.value("tie_word_embeddings", m.tied_embeddings, false);
}

template <class V>
void llama(V& v, Described& d) {
  llama_block(v, d, 10000.0, 1e-6);
  v.size("intermediate_size", d.model.ffn_hidden);
  v.or_derived("num_key_value_heads", d.model.kv_heads);
  v.or_derived("head_dim", d.model.head_dim);
  v.value("attention_bias", d.form.qkv_bias, false);
  d.form.out_bias = d.form.qkv_bias;
  v.value("mlp_bias", d.form.mlp_bias, false);
}

template <class V>
void mixtral(V& v, Described& d) {
  llama_block(v, d, 1e6, 1e-5);
  v.size("intermediate_size", d.model.moe.expert_hidden);
  v.size("num_key_value_heads", d.model.kv_heads);
  v.or_derived("head_dim", d.model.head_dim);
  v.size("num_local_experts", d.experts);
  v.window(d.model.window, nullptr);
  v.size("num_experts_per_tok", d.model.moe.top_k, 2);
  v.value("router_aux_loss_coef", d.model.moe.balance_coefficient, 0.001);
}

template <class V>
void qwen2_moe(V& v, Described& d) {
  llama_block(v, d, 10000.0, 1e-6);
  v.size("intermediate_size", d.model.ffn_hidden, 5632);
  v.size("moe_intermediate_size", d.model.moe.expert_hidden);
  v.size("num_key_value_heads", d.model.kv_heads);
  v.or_derived("head_dim", d.model.head_dim);
  v.value("num_experts", d.experts);
  v.size("num_experts_per_tok", d.model.moe.top_k);
  v.value("norm_topk_prob", d.renormalised, false);
  v.size("decoder_sparse_step", d.sparse_step, 1);
  v.value("mlp_only_layers", d.dense_layers, std::vector<int64_t>{});
  v.size("shared_expert_intermediate_size", d.form.shared_expert_width);
  v.value("qkv_bias", d.form.qkv_bias, true);
  v.value("router_aux_loss_coef", d.model.moe.balance_coefficient, 0.001);
}

template <class V>
void qwen3(V& v, Described& d) {
  llama_block(v, d, 10000.0, 1e-6);
  v.size("intermediate_size", d.model.ffn_hidden);
  v.size("num_key_value_heads", d.model.kv_heads, 32);
  v.size("head_dim", d.model.head_dim, 128);
  v.value("attention_bias", d.form.qkv_bias, false);
  d.form.out_bias = d.form.qkv_bias;
}

template <class V>
void qwen3_moe(V& v, Described& d) {
  llama_block(v, d, 10000.0, 1e-6);
  v.size("intermediate_size", d.model.ffn_hidden, 6144);
  v.size("moe_intermediate_size", d.model.moe.expert_hidden, 768);
  v.size("num_key_value_heads", d.model.kv_heads, 4);
  v.or_derived("head_dim", d.model.head_dim);
  v.value("attention_bias", d.form.qkv_bias, false);
  d.form.out_bias = d.form.qkv_bias;
  v.window(d.model.window, "use_sliding_window");
  v.renamed("num_experts", "num_local_experts", d.experts, 128);  // the latter is transformers 5's
  v.size("num_experts_per_tok", d.model.moe.top_k, 8);
  v.value("norm_topk_prob", d.renormalised, false);
  v.size("decoder_sparse_step", d.sparse_step, 1);
  v.value("mlp_only_layers", d.dense_layers, std::vector<int64_t>{});
  v.value("router_aux_loss_coef", d.model.moe.balance_coefficient, 0.001);
}

template <class V>
void olmoe(V& v, Described& d) {
  llama_block(v, d, 10000.0, 1e-5);
  v.size("intermediate_size", d.model.moe.expert_hidden);
  v.or_derived("num_key_value_heads", d.model.kv_heads);
  v.value("attention_bias", d.form.qkv_bias, false);
  d.form.out_bias = d.form.qkv_bias;
  v.nothing("clip_qkv");
  v.value("num_experts", d.experts, 64);
  v.size("num_experts_per_tok", d.model.moe.top_k, 8);
  v.value("norm_topk_prob", d.renormalised, false);
  v.value("router_aux_loss_coef", d.model.moe.balance_coefficient, 0.01);
}

template <class T>
Words<T> our_words(std::vector<EnumName>& names) {
  Words<T> words;
  for (const EnumName& n : names) words.emplace_back(n.name.c_str(), static_cast<T>(n.value));
  return words;
}

template <class V, class T>
void our_word(V& v, const char* name, T& field) {
  std::vector<EnumName> names = enum_names(T{});
  v.word(name, field, our_words<T>(names));
}

template <class V>
void ziggurat(V& v, Described& d) {
  model::ModelConfig& m = d.model;
  v.size("vocab_size", m.vocab_size);
  v.size("max_position_embeddings", m.max_sequence);
  v.size("hidden_size", m.hidden);
  v.size("intermediate_size", m.ffn_hidden);
  v.value("moe_intermediate_size", m.moe.expert_hidden, 0);
  v.value("shared_expert_intermediate_size", m.moe.residual_hidden, 0);
  v.size("num_hidden_layers", d.layers);
  v.size("num_attention_heads", m.heads);
  v.size("num_key_value_heads", m.kv_heads);
  v.size("head_dim", m.head_dim);
  our_word(v, "hidden_act", m.activation);
  our_word(v, "norm", m.norm);
  v.value("norm_eps", m.norm_eps);
  our_word(v, "positions", m.positions);
  v.value("rope_theta", m.rope_theta);
  v.value("attention_scale", m.attention_scale, 0.0);
  v.value("sliding_window", m.window, 0);
  our_word(v, "qk_norm", m.qk_norm);
  v.value("use_bias", m.bias);
  v.value("tie_word_embeddings", m.tied_embeddings);
  v.value("ffn_kinds", d.ffn_kinds);
  v.value("ffn_experts", d.ffn_experts);
  v.size("num_experts_per_tok", m.moe.top_k);
  v.value("norm_topk_prob", d.renormalised);
  our_word(v, "scoring_func", m.moe.score);
  v.value("routed_scaling_factor", m.moe.weight_scale, 1.0);
  v.value("n_group", m.moe.expert_groups, 1);
  v.value("topk_group", m.moe.chosen_groups, 1);
  v.value("balance_bias", m.moe.balance_bias, false);
  our_word(v, "residual_mix", m.moe.residual_mix);
  v.value("coefficient_bias", m.moe.coefficient_bias);
  v.value("embedding_dropout", m.dropout.embedding);
  v.value("attention_dropout", m.dropout.attention);
  v.value("hidden_dropout", m.dropout.hidden);
  v.value("initializer_range", m.init_std);
}

template <class V>
void visit_entries(V& v, Described& d) {
  switch (d.form.model_class) {
    case ModelClass::gpt2:
      return gpt2(v, d);
    case ModelClass::llama:
      return llama(v, d);
    case ModelClass::mixtral:
      return mixtral(v, d);
    case ModelClass::qwen2_moe:
      return qwen2_moe(v, d);
    case ModelClass::qwen3:
      return qwen3(v, d);
    case ModelClass::qwen3_moe:
      return qwen3_moe(v, d);
    case ModelClass::olmoe:
      return olmoe(v, d);
    case ModelClass::ziggurat:
      return ziggurat(v, d);
  }
}

}  // namespace ziggurat::hf
