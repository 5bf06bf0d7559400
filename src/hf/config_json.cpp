#include <algorithm>
#include <limits>
#include <map>
#include <sstream>

#include "hf/config_entries.h"
#include <ziggurat/config/config.h>

namespace ziggurat::hf {

using model::ModelConfig;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

class Writer {
 public:
  explicit Writer(ordered_json& out) : out_(out) {}

  template <class T>
  void value(const char* name, T& field, std::optional<std::type_identity_t<T>> = {}) {
    out_[name] = field;
  }
  void size(const char* name, int64_t& field, std::optional<int64_t> = {}) { out_[name] = field; }
  void or_derived(const char* name, int64_t& field) { out_[name] = field; }
  void repeated(const char* name, int64_t field) { out_[name] = field; }
  void renamed(const char* name, const char*, int64_t& field, int64_t) { out_[name] = field; }
  template <class T>
  void word(const char* name, T& field, const Words<T>& words) {
    for (const auto& [text, meaning] : words) {
      if (meaning != field) continue;
      out_[name] = text;
      return;
    }
  }
  void fixed(const char* name, bool must_be) { out_[name] = must_be; }
  void nothing(const char* name) { out_[name] = nullptr; }
  void window(int64_t tokens, const char* switch_name) {
    if (switch_name != nullptr) out_[switch_name] = tokens > 0;
    out_["sliding_window"] = tokens > 0 ? ordered_json(tokens) : ordered_json();
  }
  void rope(double& theta, double) {
    out_["rope_theta"] = theta;  // transformers 4, vLLM
    out_["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", theta}};
  }

 private:
  ordered_json& out_;
};

// Every refusal says which entry of which file, what it is, what may stand there, and what to do.
class Reader {
 public:
  Reader(const json& in, const std::string& where) : in_(in), where_(where) {}

  template <class T>
  void value(const char* name, T& field, std::optional<std::type_identity_t<T>> otherwise = {}) {
    if (!absent(name)) {
      field = read<T>(in_[name], name);
    } else if (otherwise) {
      field = *otherwise;
    } else {
      fail(ErrorKind::checkpoint, "{}: '{}' is missing; take the config.json that came with the weights",
           where_, name);
    }
  }
  void size(const char* name, int64_t& field, std::optional<int64_t> otherwise = {}) {
    value(name, field, otherwise);
    if (field < 1) refuse(name, in_[name], "a whole number of at least 1", kCorrect);
  }
  void repeated(const char*, int64_t) {}
  void renamed(const char* name, const char* newer, int64_t& field, int64_t otherwise) {
    value(absent(name) ? newer : name, field, otherwise);
  }
  void or_derived(const char* name, int64_t& field) {
    field = 0;
    if (!absent(name)) size(name, field);
  }
  template <class T>
  void word(const char* name, T& field, const Words<T>& words) {
    const std::string found = absent(name) ? words.front().first : read<std::string>(in_[name], name);
    std::string known;
    for (const auto& [text, meaning] : words) {
      if (found == text) {
        field = meaning;
        return;
      }
      known += (known.empty() ? "" : ", ") + std::string(text);
    }
    refuse(name, found, "one of " + known, kAnotherModel);
  }
  void fixed(const char* name, bool must_be) {
    if (absent(name) || read<bool>(in_[name], name) == must_be) return;
    refuse(name, !must_be, must_be ? "true" : "false", kAnotherModel);
  }
  void window(int64_t&, const char*) {}  // of classes whose layers may differ: see the function below
  void nothing(const char* name) {
    if (!absent(name)) refuse(name, in_[name], "null", kAnotherModel);
  }
  // transformers 5 says rope_parameters, 4 rope_theta and rope_scaling.
  void rope(double& theta, double otherwise) {
    constexpr const char* kPlain = "plain rotary positions over whole heads (rope_type default)";
    value("rope_theta", theta, otherwise);
    if (!absent("partial_rotary_factor") && in_["partial_rotary_factor"] != 1.0) {
      refuse("partial_rotary_factor", in_["partial_rotary_factor"], kPlain, kAnotherModel);
    }
    for (const char* name : {"rope_parameters", "rope_scaling"}) {
      if (absent(name)) continue;
      const json& rope = in_[name];
      if (!rope.is_object()) refuse(name, rope, "an object", kCorrect);
      const json type = rope.contains("rope_type") ? rope["rope_type"] : rope.value("type", json());
      const bool plain = (type.is_null() || type == "default") && !holds_objects(rope) &&
                         rope.value("partial_rotary_factor", json(1.0)) == 1.0;
      if (!plain) refuse(name, rope, kPlain, kAnotherModel);
      if (rope.contains("rope_theta")) theta = read<double>(rope["rope_theta"], name);
    }
  }

  // How far back attention looks, itself included, where a layer sees less than all; as the class of this
  // type has it, with its defaults.
  struct Window {
    int64_t tokens;
    bool in_all_layers;
  };
  std::optional<Window> window(const std::string& type, int64_t layers) {
    const bool always = type == "mistral" || type == "mixtral", switched = type.starts_with("qwen");
    if (!always && !switched) return {};
    bool slides = always, in_all_layers = true;
    if (switched) {
      int64_t border = 0;
      value("use_sliding_window", slides, false);
      value("max_window_layers", border, 28);
      // Which layers: of Qwen2 and Qwen3 those from the border on, of Qwen2-MoE every other one before it, of
      // Qwen3-MoE all.
      if (type == "qwen2" || type == "qwen3") slides = slides && border < layers, in_all_layers = border == 0;
      if (type == "qwen2_moe") slides = slides && border > 0, in_all_layers = false;
    }
    if (switched && type != "qwen3_moe" && !absent("layer_types")) {
      slides = false, in_all_layers = true;
      for (const auto& kind : read<std::vector<std::string>>(in_["layer_types"], "layer_types")) {
        const bool known = kind == "full_attention" || kind == "sliding_attention";
        if (!known) refuse("layer_types", kind, "full_attention or sliding_attention", kAnotherModel);
        slides |= kind == "sliding_attention";
        in_all_layers &= kind == "sliding_attention";
      }
    }
    const bool is_default = !in_.contains("sliding_window");
    if (!slides || (is_default && type == "mixtral")) return {};
    if (!is_default && absent("sliding_window")) return {};
    int64_t window = 0;
    size("sliding_window", window, 4096);
    return Window{window, in_all_layers};
  }

  // Each layer and each expert has tensors of its own.
  void check_count(const char* what, int64_t count, int64_t tensors) const {
    check(count <= tensors, ErrorKind::checkpoint,
          "{}: it describes {} {}, but the folder holds {} tensors in all; correct it, or take the "
          "config.json that came with the weights",
          where_, count, what, tensors);
  }

  // What surrounds the model in the file and would make other numbers of the same weights.
  void check_rest(const std::string& type) {
    if (!absent("quantization_config")) {
      refuse("quantization_config", in_["quantization_config"],
             "weights of 16, 32 or 64 bits, which can be trained on", "Take the model they were made from");
    }
    // transformers 5 then lets each token see those after it, whatever the class.
    if (!absent("is_causal") && in_["is_causal"] != true) {
      refuse("is_causal", in_["is_causal"], "true: each token sees those before it", kAnotherModel);
    }
    if (type != "ziggurat" && !absent("auto_map") && in_["auto_map"].contains("AutoModelForCausalLM")) {
      refuse("auto_map", in_["auto_map"], fmt::format("transformers' own class for '{}'", type),
             "The folder brings code of its own, which nobody here reads; where it computes what that class "
             "does, take the entry out");
    }
  }

  [[noreturn]] void refuse(const char* name, const json& found, const std::string& expected,
                           const std::string& cure) const {
    std::string shown = found.dump();
    constexpr size_t kEnough = 200;
    if (shown.size() > kEnough) shown = shown.substr(0, kEnough) + "...";
    fail(ErrorKind::checkpoint, "{}: '{}' is {}; expected {}. {}", where_, name, shown, expected, cure);
  }

  static constexpr const char* kCorrect = "Correct it, or take the config.json that came with the weights";
  static constexpr const char* kAnotherModel =
      "A model here cannot compute what these weights were trained for: take another one";

 private:
  bool absent(const char* name) const { return !in_.contains(name) || in_[name].is_null(); }

  // Parameters for each kind of layer.
  static bool holds_objects(const json& object) {
    return std::any_of(object.begin(), object.end(), [](const json& v) { return v.is_object(); });
  }

  template <class T>
  T read(const json& found, const char* name) const {
    const bool right = std::is_same_v<T, bool>          ? found.is_boolean()
                       : std::is_same_v<T, double>      ? found.is_number()
                       : std::is_same_v<T, std::string> ? found.is_string()
                       : std::is_same_v<T, int64_t>     ? is_count(found)
                                                        : found.is_array();
    const bool texts = std::is_same_v<T, std::vector<std::string>>;
    const std::string expected = std::is_same_v<T, bool>          ? "true or false"
                                 : std::is_same_v<T, double>      ? "a number"
                                 : std::is_same_v<T, std::string> ? "a text"
                                 : std::is_same_v<T, int64_t>     ? "a whole number from 0 to 2147483647"
                                 : texts                          ? "a list of texts"
                                                                  : "a list of whole numbers";
    if (!right) refuse(name, found, expected, kCorrect);
    if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
      if (!std::all_of(found.begin(), found.end(), is_count)) refuse(name, found, expected, kCorrect);
    }
    try {
      return found.get<T>();
    } catch (const json::exception&) {
      refuse(name, found, expected, kCorrect);
    }
  }
  static bool is_count(const json& found) {
    constexpr uint64_t kMost = std::numeric_limits<int32_t>::max();
    const bool not_negative =
        found.is_number_unsigned() || (found.is_number_integer() && found.get<int64_t>() >= 0);
    return not_negative && found.get<uint64_t>() <= kMost;
  }

  const json& in_;
  const std::string& where_;
};

// What the file calls each number of the model.
class Names {
 public:
  template <class T>
  void value(const char* name, T& field, std::optional<std::type_identity_t<T>> = {}) {
    add(name, field);
  }
  void size(const char* name, int64_t& field, std::optional<int64_t> = {}) { add(name, field); }
  void or_derived(const char* name, int64_t& field) { add(name, field); }
  void repeated(const char*, int64_t) {}
  void renamed(const char* name, const char*, int64_t& field, int64_t) { add(name, field); }
  template <class T>
  void word(const char* name, T& field, const Words<T>&) {
    add(name, field);
  }
  void fixed(const char*, bool) {}
  void nothing(const char*) {}
  void window(int64_t& tokens, const char*) { add("sliding_window", tokens); }
  void rope(double& theta, double) { add("rope_theta", theta); }

  // "hidden" and "hidden_size", ...
  std::map<std::string, std::string> by_our_keys(Described& d) const {
    std::map<std::string, std::string> names;
    for_each_value(AnyConfig{&type_info<ModelConfig>(), &d.model},
                   [&](const std::string& key, const Field& field) {
                     if (const auto found = names_.find(field.value); found != names_.end())
                       names[key] = found->second;
                   });
    return names;
  }

 private:
  template <class T>
  void add(const char* name, T& field) {
    names_[&field] = name;
  }
  std::map<const void*, std::string> names_;
};

// Numbers that do not fit together, by the names that the file has for them.
void check_numbers(const ModelConfig& config, Described& d, const std::string& where) {
  try {
    check_config(config);
  } catch (const Error& e) {
    Names names;
    visit_entries(names, d);
    const auto by_our_keys = names.by_our_keys(d);
    std::istringstream lines(e.what());
    std::string text;
    for (std::string line; std::getline(lines, line);) {
      const auto found = by_our_keys.find(line.substr(0, line.find(": ")));
      text += "\n  " + (found == by_our_keys.end() ? "" : "'" + found->second + "', here ") + line;
    }
    fail(ErrorKind::checkpoint, "{}: its entries do not make a model; {}{}", where,
         "correct them, or take the config.json that came with the weights:", text);
  }
}

const char* model_type(ModelClass model_class) {
  switch (model_class) {
    case ModelClass::gpt2:
      return "gpt2";
    case ModelClass::llama:
      return "llama";
    case ModelClass::mixtral:
      return "mixtral";
    case ModelClass::qwen2_moe:
      return "qwen2_moe";
    case ModelClass::qwen3:
      return "qwen3";
    case ModelClass::qwen3_moe:
      return "qwen3_moe";
    case ModelClass::olmoe:
      return "olmoe";
    case ModelClass::ziggurat:
      return "ziggurat";
  }
  return "";
}

}  // namespace

ordered_json to_config_json(const Form& form, const ModelConfig& config, DType dtype, int64_t eod) {
  ordered_json out = {{"architectures", {class_name(form.model_class)}},
                      {"model_type", model_type(form.model_class)}};
  if (form.model_class == ModelClass::ziggurat) {
    out["auto_map"] = {{"AutoConfig", "configuration_ziggurat.ZigguratConfig"},
                       {"AutoModel", "modeling_ziggurat.ZigguratModel"},
                       {"AutoModelForCausalLM", "modeling_ziggurat.ZigguratForCausalLM"}};
  }
  // Its default is token 1, which would never be trained on there.
  if (form.model_class == ModelClass::olmoe) out["pad_token_id"] = nullptr;
  out["torch_dtype"] = dtype == DType::bf16 ? "bfloat16" : "float32";
  for (const char* name : {"bos_token_id", "eos_token_id"}) {
    out[name] = eod >= 0 ? ordered_json(eod) : ordered_json();
  }
  Described d = described(form, config);
  Writer writer(out);
  visit_entries(writer, d);
  return out;
}

std::pair<Form, ModelConfig> from_config_json(const json& in, const ModelConfig& base,
                                              const std::string& where, bool with_shared_expert,
                                              std::vector<std::string>* notes, int64_t tensors) {
  const bool named = in.is_object() && in.contains("model_type") && in["model_type"].is_string();
  check(named, ErrorKind::checkpoint,
        "{}: expected an object with a 'model_type'; take the config.json that came with the weights", where);
  const auto type = in["model_type"].get<std::string>();
  Described d{.model = base};
  // Mistral and Qwen2 have Llama's layers and tensors: one with a window, one with biases of q, k and v.
  const std::map<std::string, ModelClass> known = {
      {"gpt2", ModelClass::gpt2},       {"llama", ModelClass::llama},
      {"mistral", ModelClass::llama},   {"qwen2", ModelClass::llama},
      {"mixtral", ModelClass::mixtral}, {"qwen2_moe", ModelClass::qwen2_moe},
      {"qwen3", ModelClass::qwen3},     {"qwen3_moe", ModelClass::qwen3_moe},
      {"olmoe", ModelClass::olmoe},     {"ziggurat", ModelClass::ziggurat}};
  const auto found = known.find(type);
  check(found != known.end(), ErrorKind::checkpoint,
        "{}: models of type '{}' cannot be imported; those that can: gpt2, llama, mistral, qwen2, mixtral, "
        "qwen2_moe, qwen3, qwen3_moe, olmoe and what `ziggurat export` writes",
        where, type);
  d.form.model_class = found->second;
  Reader reader(in, where);
  reader.check_rest(type);
  visit_entries(reader, d);
  reader.check_count("layers", d.layers, tensors);
  const auto window = reader.window(type, d.layers);
  if (window && window->tokens < d.model.max_sequence && window->in_all_layers) {
    d.model.window = window->tokens;
  } else if (window && window->tokens < d.model.max_sequence) {
    // Attention over a window and over all is the same as long as a sequence fits into the window.
    if (notes != nullptr) {
      notes->push_back(fmt::format(
          "{}: attention looks back over 'sliding_window' {} of its {} positions in some layers; a model "
          "here "
          "does so in all or in none, which is the same for sequences of up to {} tokens: that is its "
          "max_sequence now",
          where, window->tokens, d.model.max_sequence, window->tokens));
    }
    d.model.max_sequence = window->tokens;
  }
  if (type == "qwen2") d.form.qkv_bias = true;
  if (type == "gpt2") d.form.qkv_bias = d.form.out_bias = d.form.mlp_bias = true;
  if (type == "ziggurat") d.form.qkv_bias = d.form.out_bias = d.form.mlp_bias = d.model.bias;
  const Form form = d.form;
  const ModelConfig config = model_of(d, with_shared_expert, base, where);
  int64_t experts = 0;
  for (const model::BlockSpec& layer : config.layers()) experts += std::max<int64_t>(0, layer.experts);
  reader.check_count("experts", experts, tensors);
  check_numbers(config, d, where);
  return {form, config};
}

}  // namespace ziggurat::hf
