#include "hf/card.h"

#include <ziggurat/config/units.h>

namespace ziggurat::hf {

namespace {

std::string layers_in_words(const model::ModelConfig& config) {
  std::string text;
  for (const model::BlockRun& run : config.blocks) {
    std::string pattern;
    for (const model::BlockSpec& layer : run.pattern) {
      pattern += (pattern.empty() ? "" : ", ") + enum_text(layer.ffn);
      if (layer.experts > 0) pattern += fmt::format(" of {} experts", layer.experts);
    }
    text += fmt::format("{}{} x ({})", text.empty() ? "" : ", ", run.repeat, pattern);
  }
  return text;
}

std::string inner_widths(const model::ModelConfig& c) {
  std::string words;
  if (c.has(model::FfnKind::dense)) words += fmt::format(", inner {}", c.ffn_width());
  if (c.has_experts()) words += fmt::format(", of experts {}", c.expert_width());
  if (c.has(model::FfnKind::residual_moe)) words += fmt::format(", beside experts {}", c.residual_width());
  return words;
}

const char* qk_norm_in_words(nn::QkNorm qk_norm) {
  switch (qk_norm) {
    case nn::QkNorm::none:
      return "";
    case nn::QkNorm::head:
      return "; queries and keys normalised over each";
    case nn::QkNorm::width:
      return "; queries and keys normalised over the width of all";
  }
  return "";
}

std::string row(const char* name, const std::string& value) {
  return fmt::format("| {} | {} |\n", name, value);
}

}  // namespace

std::string model_card(const Exported& exported, const model::ModelConfig& config, DType dtype,
                       const Provenance& provenance, const Tokenizer* tokenizer) {
  const model::ModelCounts counts = model::count(config, config.max_sequence);
  const bool own_code = exported.form.model_class == ModelClass::ziggurat;
  const std::string name = config.name.empty() ? provenance.run : config.name;
  const bool own_tokenizer = own_code || (tokenizer && tokenizer->kind() == "sentencepiece");
  const auto trusting = [](bool code) { return code ? ", trust_remote_code=True" : ""; };
  const std::string tokenizer_line =
      fmt::format("tokenizer = AutoTokenizer.from_pretrained(\"PATH\"{})\n", trusting(own_tokenizer));
  std::string card = fmt::format(
      "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [ziggurat]\n---\n\n# {}\n\n",
      name);
  card += fmt::format(
      "A GPT trained with Ziggurat, as `{}`{}.\n\n```python\nfrom transformers import "
      "AutoModelForCausalLM{}\n"
      "model = AutoModelForCausalLM.from_pretrained(\"PATH\"{})\n{}```\n\n",
      class_name(exported.form.model_class), own_code ? " (modeling_ziggurat.py, which comes with it)" : "",
      tokenizer ? ", AutoTokenizer" : "", trusting(own_code), tokenizer ? tokenizer_line : "");

  card += "| | |\n|---|---|\n";
  card += row("parameters", fmt::format("{}, {} read for a token", format_count(double(counts.parameters)),
                                        format_count(double(counts.active_parameters))));
  card += row("layers", layers_in_words(config));
  card += row("width", fmt::format("{}{}", config.hidden, inner_widths(config)));
  card += row("heads", fmt::format("{}, of keys and values {}", config.heads, config.key_value_heads()) +
                           qk_norm_in_words(config.qk_norm));
  card += row("context", fmt::format("{} tokens", config.max_sequence));
  card += row("vocabulary", fmt::format("{}", config.vocab_size));
  card +=
      row("tokenizer", tokenizer ? fmt::format("{}, SHA-256 {}", tokenizer->kind(), tokenizer->fingerprint())
                                 : "none comes with this folder");
  card += row("weights", fmt::format("{}, {}, {}", to_string(dtype), format_bytes(double(exported.bytes)),
                                     exported.weight_hash));
  card += row("run", fmt::format("{}, step {}", provenance.run, provenance.step));
  card += row("data", provenance.data);
  card += row("tokens trained on", format_count(double(provenance.tokens)));
  for (const auto& [what, loss] : provenance.losses) card += row(what.c_str(), loss);
  card += "\n`ziggurat.yaml` is the whole configuration of the run.\n";
  if (!exported.notes.empty()) {
    card += "\n## What to know\n\n";
    for (const std::string& note : exported.notes) card += "- " + note + "\n";
  }
  return card;
}

}  // namespace ziggurat::hf
