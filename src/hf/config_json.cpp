#include <algorithm>
#include <limits>
#include <map>

#include "hf/config_entries.h"

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
  void rope(double& theta, double) {
    out_["rope_theta"] = theta;  // transformers 4, vLLM
    out_["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", theta}};
  }
  void window(int64_t&) {}

 private:
  ordered_json& out_;
};

class Reader {
 public:
  Reader(const json& in, const std::string& where) : in_(in), where_(where) {}

  template <class T>
  void value(const char* name, T& field, std::optional<std::type_identity_t<T>> otherwise = {}) {
    if (absent(name)) {
      check(otherwise.has_value(), ErrorKind::checkpoint,
            "{}: '{}' is missing; take the config.json that came with the weights", where_, name);
      field = *otherwise;
    } else {
      field = read<T>(in_[name], name);
    }
  }
  void repeated(const char*, int64_t) {}
  void renamed(const char* name, const char* newer, int64_t& field, int64_t otherwise) {
    value(absent(name) ? newer : name, field, otherwise);
  }
  void or_derived(const char* name, int64_t& field) {
    field = absent(name) ? 0 : read<int64_t>(in_[name], name);
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
    fail(ErrorKind::checkpoint, "{}: '{}' is '{}', which a model here cannot have: it knows {}", where_, name,
         found, known);
  }
  void fixed(const char* name, bool must_be) {
    check(absent(name) || read<bool>(in_[name], name) == must_be, ErrorKind::checkpoint,
          "{}: '{}' is {}, which a model here cannot have", where_, name, !must_be);
  }
  void nothing(const char* name) {
    check(absent(name), ErrorKind::checkpoint,
          "{}: '{}' is {}, which a model here cannot have: expected null", where_, name, in_[name].dump());
  }
  // transformers 5 says rope_parameters, 4 rope_theta and rope_scaling.
  void rope(double& theta, double otherwise) {
    value("rope_theta", theta, otherwise);
    for (const char* name : {"rope_parameters", "rope_scaling"}) {
      if (absent(name)) continue;
      const json& rope = in_[name];
      const auto text = [&](const char* key) { return rope.contains(key) ? rope[key].dump() : ""; };
      check(rope.is_object(), ErrorKind::checkpoint, "{}: '{}' is {}, expected an object", where_, name,
            rope.dump());
      const std::string type = rope.contains("rope_type") ? text("rope_type") : text("type");
      const bool plain = (type.empty() || type == "\"default\"") &&
                         (!rope.contains("partial_rotary_factor") || rope["partial_rotary_factor"] == 1.0);
      check(plain, ErrorKind::checkpoint,
            "{}: '{}' scales or shortens rotary positions ({}), which a model here cannot", where_, name,
            rope.dump());
      if (rope.contains("rope_theta")) theta = read<double>(rope["rope_theta"], name);
    }
  }
  // Attention that looks back over a window only is ours for sequences that fit into it.
  void window(int64_t& max_sequence) {
    if (absent("sliding_window")) return;
    if (!absent("use_sliding_window") && !read<bool>(in_["use_sliding_window"], "use_sliding_window")) return;
    max_sequence = std::min(max_sequence, read<int64_t>(in_["sliding_window"], "sliding_window"));
  }

 private:
  bool absent(const char* name) const { return !in_.contains(name) || in_[name].is_null(); }

  template <class T>
  T read(const json& found, const char* name) {
    const bool right = std::is_same_v<T, bool>          ? found.is_boolean()
                       : std::is_same_v<T, double>      ? found.is_number()
                       : std::is_same_v<T, std::string> ? found.is_string()
                       : std::is_same_v<T, int64_t>     ? is_count(found)
                                                        : found.is_array();
    check(right, ErrorKind::checkpoint, "{}: '{}' is {}, expected {}", where_, name, found.dump(),
          std::is_same_v<T, bool>          ? "true or false"
          : std::is_same_v<T, double>      ? "a number"
          : std::is_same_v<T, std::string> ? "a text"
          : std::is_same_v<T, int64_t>     ? "a whole number of at least 0"
                                           : "a list");
    try {
      return found.get<T>();
    } catch (const json::exception&) {
      fail(ErrorKind::checkpoint, "{}: '{}' is {}, a list of something else than expected", where_, name,
           found.dump());
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
                                              const std::string& where, bool with_shared_expert) {
  const bool named = in.is_object() && in.contains("model_type") && in["model_type"].is_string();
  check(named, ErrorKind::checkpoint, "{}: expected an object with a 'model_type'", where);
  const auto type = in["model_type"].get<std::string>();
  Described d{.model = base};
  json entries = in;
  if (type.starts_with("qwen") && !in.contains("use_sliding_window")) entries["use_sliding_window"] = false;
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
  Reader reader(entries, where);
  visit_entries(reader, d);
  if (type == "qwen2") d.form.qkv_bias = true;
  if (type == "gpt2") d.form.qkv_bias = d.form.out_bias = d.form.mlp_bias = true;
  if (type == "ziggurat") d.form.qkv_bias = d.form.out_bias = d.form.mlp_bias = d.model.bias;
  const Form form = d.form;
  return {form, model_of(std::move(d), with_shared_expert, base, where)};
}

}  // namespace ziggurat::hf
