#include <algorithm>
#include <cmath>

#include <ziggurat/model/same_model.h>

namespace ziggurat::model {

namespace {

// One spelling for everything but the layers.
ModelConfig spelled_out(const ModelConfig& config) {
  ModelConfig c = config;
  c.name.clear();
  c.kv_heads = config.key_value_heads();
  c.head_dim = config.head_width();
  c.ffn_hidden = config.ffn_width();
  c.moe.expert_hidden = config.expert_width();
  c.moe.residual_hidden = config.residual_width();
  c.vocab_multiple = config.padded_vocab();
  const double usual = 1.0 / std::sqrt(static_cast<double>(config.head_width()));
  c.attention_scale = config.score_scale() == usual ? 0 : config.score_scale();
  c.mup_base_hidden = c.mup_base_head_dim = 0;  // of training
  c.blocks.clear();
  return c;
}

std::string text(const BlockSpec& layer) {
  const std::string kind(enum_text(layer.ffn));
  return layer.ffn == FfnKind::dense ? kind : fmt::format("{} of {} experts", kind, layer.experts);
}

}  // namespace

std::vector<ConfigDifference> model_differences(const ModelConfig& before, const ModelConfig& after) {
  std::vector<ConfigDifference> differences = config_diff(spelled_out(before), spelled_out(after));
  for (ConfigDifference& d : differences) d.key = "model." + d.key;
  const std::vector<BlockSpec> old_layers = before.layers(), new_layers = after.layers();
  for (size_t i = 0; i < std::max(old_layers.size(), new_layers.size()); ++i) {
    const auto side = [i](const std::vector<BlockSpec>& layers) {
      return i < layers.size() ? text(layers[i]) : std::string("(absent)");
    };
    const std::string was = side(old_layers), is = side(new_layers);
    if (was != is) differences.push_back({fmt::format("model.blocks, layer {}", i), was, is});
  }
  return differences;
}

}  // namespace ziggurat::model
