// Which class a model is: every field that a class cannot express leads away from it.
#include "tests/unit/hf/hf_test_support.h"

namespace ziggurat::test {
namespace {

using hf::ModelClass;
using ::testing::HasSubstr;

ModelClass class_of(const ModelConfig& config) { return hf::choose_form(config).model_class; }

const ModelConfig& model_named(const std::string& name) {
  for (const auto& [known, config] : small_models()) {
    if (known == name) return config;
  }
  ADD_FAILURE() << name;
  return small_models().front().second;
}

TEST(HfForm, EverySmallModelHasItsClass) {
  for (const auto& [name, config] : small_models()) {
    const std::string word =
        hf::to_config_json(hf::choose_form(config), config, DType::f32, -1)["model_type"];
    EXPECT_TRUE(name.starts_with(word)) << name << " became " << word;
  }
}

TEST(HfForm, Gpt2SaysItsLengthByBothNames) {
  const ModelConfig config = model_named("gpt2");
  const auto json = hf::to_config_json(hf::choose_form(config), config, DType::f32, -1);
  EXPECT_EQ(json["n_positions"], config.max_sequence);
  EXPECT_EQ(json["n_ctx"], config.max_sequence);
}

// What one changed field makes of a model.
struct Change {
  const char* from;
  void (*change)(ModelConfig&);
  ModelClass to;
};

TEST(HfForm, OneFieldDecides) {
  const ModelClass own = ModelClass::ziggurat;
  const std::vector<Change> changes = {
      {"gpt2", [](ModelConfig& c) { c.activation = nn::MlpKind::gelu_erf; }, ModelClass::gpt2},
      {"gpt2", [](ModelConfig& c) { c.norm = nn::NormKind::rms_norm; }, own},
      {"gpt2", [](ModelConfig& c) { c.positions = model::Positions::rope; }, own},
      {"gpt2", [](ModelConfig& c) { c.activation = nn::MlpKind::swiglu; }, own},
      {"gpt2", [](ModelConfig& c) { c.kv_heads = 2; }, own},
      {"gpt2", [](ModelConfig& c) { c.head_dim = 6; }, own},
      {"gpt2",
       [](ModelConfig& c) {
         c.blocks[0].pattern[0] = {FfnKind::moe, 2};
       },
       own},
      {"llama", [](ModelConfig& c) { c.head_dim = 6; }, ModelClass::llama},
      {"llama", [](ModelConfig& c) { c.heads = c.kv_heads = 3, c.head_dim = 4; }, own},
      {"llama", [](ModelConfig& c) { c.norm = nn::NormKind::layer_norm; }, own},
      {"llama", [](ModelConfig& c) { c.positions = model::Positions::learned; }, own},
      {"llama", [](ModelConfig& c) { c.activation = nn::MlpKind::gelu_tanh; }, own},
      {"mixtral", [](ModelConfig& c) { c.moe.top_k = 1; }, ModelClass::mixtral},  // renormalised: 1.0
      {"mixtral", [](ModelConfig& c) { c.head_dim = 6; }, ModelClass::mixtral},
      {"mixtral", [](ModelConfig& c) { c.moe.renormalise = moe::Renormalise::none; }, ModelClass::qwen2_moe},
      {"mixtral", [](ModelConfig& c) { c.moe.renormalise = moe::Renormalise::none, c.moe.top_k = 4; },
       ModelClass::mixtral},  // all probabilities of a token
      {"mixtral",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{}}});
       },
       ModelClass::qwen2_moe},
      {"mixtral",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::moe, 8}}});
       },
       own},
      {"mixtral",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::residual_moe, 4}}});
       },
       own},
      {"mixtral", [](ModelConfig& c) { c.bias = true; }, own},
      {"qwen2_moe", [](ModelConfig& c) { c.head_dim = 6; }, own},
      {"qwen2_moe", [](ModelConfig& c) { c.moe.expert_hidden = 12; }, ModelClass::qwen2_moe},
      {"qwen2_moe_shared", [](ModelConfig&) {}, ModelClass::qwen2_moe},
      {"qwen2_moe_shared", [](ModelConfig& c) { c.moe.residual_mix = moe::ResidualMix::sum; }, own},
      {"qwen2_moe_shared", [](ModelConfig& c) { c.moe.coefficient_bias = true; }, own},
      {"qwen2_moe_shared",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::moe, 4}}});
       },
       own},
      {"qwen2_moe", [](ModelConfig& c) { c.bias = true; }, own},
      {"qwen2_moe",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::moe, 8}}});
       },
       own},
      {"gpt2", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::head; }, own},
      {"llama", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::head; }, ModelClass::qwen3},
      {"llama", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::width; }, own},
      {"llama_bias", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::head; }, own},
      {"mixtral", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::head; }, ModelClass::qwen3_moe},
      {"mixtral", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::width; }, ModelClass::olmoe},
      {"qwen2_moe", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::width; }, own},  // has dense layers
      {"qwen3", [](ModelConfig& c) { c.heads = c.kv_heads = 3; }, ModelClass::qwen3},
      {"qwen3", [](ModelConfig& c) { c.norm = nn::NormKind::layer_norm; }, own},
      {"qwen3", [](ModelConfig& c) { c.qk_norm = nn::QkNorm::none; }, ModelClass::llama},
      {"qwen3_moe", [](ModelConfig& c) { c.head_dim = 6; }, ModelClass::qwen3_moe},
      {"qwen3_moe", [](ModelConfig& c) { c.moe.renormalise = moe::Renormalise::chosen; },
       ModelClass::qwen3_moe},
      {"qwen3_moe", [](ModelConfig& c) { c.bias = true; }, own},
      {"qwen3_moe", [](ModelConfig& c) { c.positions = model::Positions::learned; }, own},
      {"qwen3_moe",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::moe, 8}}});
       },
       own},
      {"qwen3_moe",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{FfnKind::residual_moe, 4}}});
       },
       own},
      {"olmoe", [](ModelConfig& c) { c.moe.renormalise = moe::Renormalise::chosen; }, ModelClass::olmoe},
      {"olmoe", [](ModelConfig& c) { c.kv_heads = 0; }, ModelClass::olmoe},
      {"olmoe", [](ModelConfig& c) { c.head_dim = 6; }, own},
      {"olmoe", [](ModelConfig& c) { c.bias = true; }, own},
      {"olmoe",
       [](ModelConfig& c) {
         c.blocks.push_back({1, {{}}});
       },
       own}};
  for (size_t i = 0; i < changes.size(); ++i) {
    ModelConfig config = model_named(changes[i].from);
    changes[i].change(config);
    EXPECT_EQ(class_of(config), changes[i].to) << "change " << i << " of " << changes[i].from;
  }
}

TEST(HfForm, ConfigJsonReadsBackToTheSameModel) {
  for (const auto& [name, config] : small_models()) {
    const hf::Form form = hf::choose_form(config);
    const nlohmann::json json = hf::to_config_json(form, config, DType::f32, -1);
    const auto [form_back, back] = hf::from_config_json(json, config, "config.json");
    EXPECT_EQ(nlohmann::json(hf::to_config_json(form_back, back, DType::f32, -1)), json) << name;
    EXPECT_EQ(form_back.shared_expert_width, form.shared_expert_width);
    EXPECT_EQ(back.bias, config.bias) << name;
  }
}

// The width of dense layers is told by classes that can have some, also where this model has none.
TEST(HfForm, AWidthThatNoLayerHasIsKept) {
  for (const char* name : {"qwen2_moe_shared", "qwen3_moe", "ziggurat_widths"}) {
    ModelConfig config = model_named(name);
    config.blocks = {{2, {{config.blocks.back().pattern.front().ffn, 4}}}};
    if (name == std::string("qwen3_moe")) config.blocks[0].pattern[0].ffn = FfnKind::moe;
    const nlohmann::json json = hf::to_config_json(hf::choose_form(config), config, DType::f32, -1);
    EXPECT_EQ(json["intermediate_size"], 24) << name;
    EXPECT_EQ(json["moe_intermediate_size"], 12) << name;
    const bool shared = name == std::string("qwen2_moe_shared");
    const auto [form, back] = hf::from_config_json(json, {}, "config.json", shared);
    EXPECT_EQ(nlohmann::json(hf::to_config_json(form, back, DType::f32, -1)), json) << name;
  }
}

// As transformers' own files have them, with what they leave out.
nlohmann::json llama_json() {
  return nlohmann::json::parse(R"({"model_type": "llama", "vocab_size": 40, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64,
    "rope_theta": 5000.0})");
}

TEST(HfForm, WhatAConfigLeavesOutIsTransformersDefault) {
  const auto [form, c] = hf::from_config_json(llama_json(), {}, "x");
  EXPECT_EQ(c.key_value_heads(), 4);
  EXPECT_EQ(c.head_width(), 4);
  EXPECT_EQ(c.rope_theta, 5000);
  EXPECT_EQ(c.norm_eps, 1e-6);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_FALSE(c.bias);
  EXPECT_EQ(c.layers().size(), 3u);
  EXPECT_EQ(c.blocks.size(), 1u);
}

TEST(HfForm, Qwen2HasBiases) {
  nlohmann::json json = llama_json();
  json["model_type"] = "qwen2", json["num_key_value_heads"] = 2;
  const auto [form, c] = hf::from_config_json(json, {}, "x");
  EXPECT_TRUE(form.qkv_bias && !form.out_bias && !form.mlp_bias && c.bias);
}

// A window of all layers is the model's. One of some layers is attention over all where a sequence fits into
// it: so long are sequences then, and it is said. Which layers look back how far: transformers'
// configuration_*.py and modeling_*.py.
TEST(HfForm, AWindowOfSomeLayersBoundsTheSequenceAndIsTold) {
  struct Case {
    const char *type, *entries;
    int64_t max_sequence;  // of 8192
    int64_t window = 0;
  };
  const Case cases[] = {
      {"mistral", R"({"sliding_window": 48})", 8192, 48},
      {"mistral", R"({"sliding_window": 9000})", 8192},
      {"mistral", R"({"sliding_window": null})", 8192},
      {"mistral", R"({})", 8192, 4096},  // the class's default
      {"mixtral", R"({})", 8192},
      {"mixtral", R"({"sliding_window": 100})", 8192, 100},
      {"llama", R"({"sliding_window": 48})", 8192},  // which its class does not read
      {"olmoe", R"({"sliding_window": 48})", 8192},
      {"qwen2", R"({"sliding_window": 48})", 8192},                              // off unless said
      {"qwen2", R"({"sliding_window": 48, "use_sliding_window": true})", 8192},  // 3 layers, from layer 28 on
      {"qwen2", R"({"sliding_window": 48, "use_sliding_window": true, "max_window_layers": 2})", 48},
      {"qwen3", R"({"use_sliding_window": true, "max_window_layers": 0})", 8192, 4096},
      {"qwen3", R"({"sliding_window": 48, "use_sliding_window": true,
                    "layer_types": ["full_attention", "sliding_attention", "full_attention"]})",
       48},
      {"qwen3", R"({"sliding_window": 48, "use_sliding_window": true, "max_window_layers": 0,
                    "layer_types": ["full_attention", "full_attention", "full_attention"]})",
       8192},
      {"qwen2_moe", R"({"sliding_window": 48, "use_sliding_window": true})",
       48},  // every other layer below 28
      {"qwen2_moe", R"({"sliding_window": 48, "use_sliding_window": true, "max_window_layers": 0})", 8192},
      {"qwen3_moe", R"({"sliding_window": 48, "use_sliding_window": true})", 8192, 48},
      {"qwen3_moe", R"({"sliding_window": 48, "use_sliding_window": false})", 8192},
  };
  for (const Case& c : cases) {
    nlohmann::json json = llama_json();
    json["model_type"] = c.type, json["max_position_embeddings"] = 8192;
    json["num_key_value_heads"] = 2, json["num_experts"] = json["num_local_experts"] = 4;
    json["num_experts_per_tok"] = 2, json["moe_intermediate_size"] = 24;
    json["shared_expert_intermediate_size"] = 8;
    json.update(nlohmann::json::parse(c.entries));
    std::vector<std::string> notes;
    const ModelConfig model = hf::from_config_json(json, {}, "x", false, &notes).second;
    EXPECT_EQ(model.max_sequence, c.max_sequence) << c.type << " " << c.entries;
    EXPECT_EQ(model.window, c.window) << c.type << " " << c.entries;
    ASSERT_EQ(notes.size(), c.max_sequence < 8192 ? 1u : 0u) << c.type << " " << c.entries;
    if (!notes.empty()) {
      EXPECT_THAT(notes[0], ::testing::AllOf(HasSubstr(fmt::format("up to {} tokens", c.max_sequence)),
                                             HasSubstr("'sliding_window'"), HasSubstr("x: ")));
    }
  }
}

TEST(HfForm, QueryNormsComeWithTheClass) {
  nlohmann::json json = llama_json();
  json["model_type"] = "qwen3", json["num_attention_heads"] = 32;
  ModelConfig c = hf::from_config_json(json, {}, "x").second;
  EXPECT_EQ(c.qk_norm, nn::QkNorm::head);
  EXPECT_EQ(c.head_width(), 128);  // transformers' default, whatever hidden / heads is
  EXPECT_EQ(c.key_value_heads(), 32);
  json["model_type"] = "qwen3_moe", json["num_attention_heads"] = 4, json["num_key_value_heads"] = 2;
  json["moe_intermediate_size"] = 24, json["decoder_sparse_step"] = 2, json["num_local_experts"] = 16;
  hf::Form form;
  std::tie(form, c) = hf::from_config_json(json, {}, "x");
  EXPECT_EQ(c.qk_norm, nn::QkNorm::head);
  EXPECT_EQ(c.head_width(), 4);
  EXPECT_EQ(c.moe.top_k, 8);
  EXPECT_EQ(c.layers()[0].ffn, FfnKind::dense);
  EXPECT_EQ(c.layers()[1].experts, 16);
  EXPECT_FALSE(form.qkv_bias || c.bias);
  json["model_type"] = "olmoe", json["num_experts"] = 10, json["attention_bias"] = true;
  ModelConfig base;
  base.head_dim = 3;  // of another model
  std::tie(form, c) = hf::from_config_json(json, base, "x");
  EXPECT_EQ(c.qk_norm, nn::QkNorm::width);
  EXPECT_EQ(c.head_width(), 4);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.moe.renormalise, moe::Renormalise::none);
  EXPECT_EQ(c.layers()[0].experts, 10);
  EXPECT_TRUE(form.qkv_bias && form.out_bias && !form.mlp_bias && c.bias);
  json["model_type"] = "llama";
  base.qk_norm = nn::QkNorm::width;
  EXPECT_EQ(hf::from_config_json(json, base, "x").second.qk_norm, nn::QkNorm::none);
}

TEST(HfForm, WhatAModelCannotBeIsRefusedByName) {
  const auto refused = [](auto change) -> std::string {
    nlohmann::json json = llama_json();
    change(json);
    try {
      hf::from_config_json(json, {}, "dir/config.json");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::checkpoint);
      return e.what();
    }
    return "";
  };
  using J = nlohmann::json;
  EXPECT_THAT(refused([](J& j) { j["model_type"] = "bert"; }), HasSubstr("those that can: gpt2"));
  EXPECT_THAT(refused([](J& j) { j.erase("model_type"); }), HasSubstr("model_type"));
  EXPECT_THAT(refused([](J& j) { j = 3; }), HasSubstr("dir/config.json"));
  EXPECT_THAT(refused([](J& j) { j.erase("hidden_size"); }), HasSubstr("'hidden_size' is missing"));
  EXPECT_THAT(refused([](J& j) { j["hidden_size"] = -16; }), HasSubstr("'hidden_size' is -16"));
  EXPECT_THAT(refused([](J& j) { j["hidden_size"] = "16"; }), HasSubstr("whole number"));
  EXPECT_THAT(refused([](J& j) { j["hidden_act"] = "relu"; }), HasSubstr("\"relu\""));
  EXPECT_THAT(refused([](J& j) { j["num_hidden_layers"] = 0; }), HasSubstr("at least 1"));
  EXPECT_THAT(refused([](J& j) {
                j["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
              }),
              HasSubstr("rope_scaling"));
  EXPECT_THAT(refused([](J& j) { j["rope_parameters"] = {{"rope_type", "llama3"}}; }), HasSubstr("llama3"));
  EXPECT_THAT(refused([](J& j) { j["model_type"] = "olmoe", j["clip_qkv"] = 8.0; }),
              HasSubstr("'clip_qkv' is 8.0; expected null"));
  EXPECT_THAT(refused([](J& j) { j["partial_rotary_factor"] = 0.5; }), HasSubstr("'partial_rotary_factor'"));
  EXPECT_THAT(refused([](J& j) {
                j["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}}}};
              }),
              HasSubstr("'rope_parameters'"));
  EXPECT_THAT(refused([](J& j) {
                j["quantization_config"] = {{"quant_method", "fp8"}};
              }),
              HasSubstr("the model they were made from"));
  EXPECT_THAT(refused([](J& j) { j["is_causal"] = false; }), HasSubstr("'is_causal' is false"));
  EXPECT_EQ(refused([](J& j) { j["is_causal"] = true; }), "");
  EXPECT_THAT(refused([](J& j) {
                j["auto_map"] = {{"AutoModelForCausalLM", "modeling_x.X"}};
              }),
              HasSubstr("code of its own"));
  EXPECT_THAT(refused([](J& j) { j["model_type"] = "qwen3", j["layer_types"] = {"linear_attention"}; }),
              HasSubstr("'layer_types' is \"linear_attention\""));
  EXPECT_THAT(refused([](J& j) { j["num_attention_heads"] = 3; }),
              ::testing::AllOf(HasSubstr("dir/config.json"), HasSubstr("'num_attention_heads', here heads")));
  EXPECT_THAT(refused([](J& j) { j["num_key_value_heads"] = 3; }), HasSubstr("'num_key_value_heads'"));
  EXPECT_EQ(refused([](J& j) {
              j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 3.0}};
            }),
            "");
}

// A billion layers would be listed before the first of their tensors is missed.
TEST(HfForm, MoreLayersOrExpertsThanTensorsAreRefusedAtOnce) {
  const auto refused = [](const char* type, const char* entry) -> std::string {
    nlohmann::json json = llama_json();
    json["model_type"] = type;
    json["num_experts"] = json["num_experts_per_tok"] = json["moe_intermediate_size"] = 2;
    json["num_key_value_heads"] = json["num_attention_heads"];
    json[entry] = INT32_MAX;
    try {
      hf::from_config_json(json, {}, "dir/config.json", false, nullptr, /*tensors=*/100);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::checkpoint);
      return e.what();
    }
    return "";
  };
  const auto told = [](const char* what) {
    return ::testing::AllOf(HasSubstr("dir/config.json: it describes"), HasSubstr(what),
                            HasSubstr("100 tensors"));
  };
  EXPECT_THAT(refused("llama", "num_hidden_layers"), told("2147483647 layers"));
  EXPECT_THAT(refused("qwen3_moe", "num_hidden_layers"), told("2147483647 layers"));
  EXPECT_THAT(refused("qwen3_moe", "num_experts"), told(" experts"));
}

// Whatever entry of whatever class is wrong: file, entry and cure are named.
TEST(HfForm, EveryRefusalNamesFileEntryAndCure) {
  using J = nlohmann::json;
  int refusals = 0;
  for (const auto& [name, config] : small_models()) {
    const J good = hf::to_config_json(hf::choose_form(config), config, DType::f32, -1);
    for (const auto& [key, value] : good.items()) {
      for (const J& wrong : {J(), J(-1), J(0), J(1e300), J("nonsense"), J(true), J(false), J::array({-3}),
                             J(7), J::array({"x"}), J::object({{"type", "yarn"}}), J(uint64_t{1} << 40)}) {
        J json = good;
        json[key] = wrong;
        try {
          hf::from_config_json(json, config, "dir/config.json");
        } catch (const Error& e) {
          const std::string message = e.what();
          EXPECT_EQ(e.kind(), ErrorKind::checkpoint) << message;
          EXPECT_THAT(message, HasSubstr("dir/config.json"));
          EXPECT_THAT(message, ::testing::AnyOf(HasSubstr("'" + key + "'"), HasSubstr("do not make a model"),
                                                HasSubstr("models of type")))
              << name << " " << key << " " << wrong;
          EXPECT_THAT(message,
                      ::testing::AnyOf(HasSubstr("take "), HasSubstr("Take "), HasSubstr("those that can")));
          ++refusals;
        }
      }
    }
  }
  EXPECT_GT(refusals, 1000);
}

}  // namespace
}  // namespace ziggurat::test
