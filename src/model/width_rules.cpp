#include <cmath>

#include <ziggurat/model/width_rules.h>

namespace ziggurat::model {

namespace {

// Of numbers that leave the width: to experts, to coefficients, to the vocabulary.
bool is_output(const nn::ParamSpec& spec) { return spec.small_product || spec.name == "head.weight"; }

bool is_hidden_matrix(const nn::ParamSpec& spec) {
  return spec.matrix && spec.global_shape.rank() >= 2 && !spec.name.starts_with("embed.");
}

}  // namespace

WidthRule width_rule(const ModelConfig& c, const nn::ParamSpec& spec) {
  if (c.mup_base_hidden == 0) return {};
  const double m = static_cast<double>(c.hidden) / static_cast<double>(c.mup_base_hidden);
  if (is_output(spec)) return {1 / m, 1 / m};
  if (is_hidden_matrix(spec)) return {1 / std::sqrt(m), 1 / m};
  if (c.tied_embeddings && spec.name.starts_with("final_norm.")) return {1 / m, 1 / m};
  return {};
}

void apply_width_rules(const ModelConfig& config, nn::ParamStore& store) {
  for (nn::ParamEntry& entry : store.entries()) {
    const WidthRule rule = width_rule(config, entry.spec);
    // Uniform values are drawn within 1 / sqrt(hidden): a square root of the width is in them already.
    const bool by_width = entry.spec.init.kind == nn::Init::Kind::uniform;
    entry.spec.init.scale *= by_width ? std::sqrt(rule.init) : rule.init;
    entry.spec.lr_scale = rule.lr, entry.spec.width_init = rule.init;
  }
}

}  // namespace ziggurat::model
