#include <algorithm>
#include <array>
#include <numeric>

#include <ziggurat/model/model_config.h>

namespace ziggurat::model {

namespace {

constexpr int64_t kMostLayers = 50'000;
constexpr double kMostParameters = 1e15;  // so that counts, and bytes of anything per parameter, fit 64 bits

// Rules of options that only layers of experts read.
void check_experts(const ModelConfig& c, Problems& problems) {
  for (const BlockRun& run : c.blocks) {
    for (const BlockSpec& layer : run.pattern) {
      if (layer.ffn == FfnKind::dense || layer.experts < 1 || c.moe.top_k <= layer.experts) continue;
      return problems.add("moe.top_k", fmt::format("expected at most the {} experts of a layer, got {}",
                                                   layer.experts, c.moe.top_k));
    }
  }
  for (const BlockRun& run : c.blocks) {
    for (const BlockSpec& layer : run.pattern) {
      if (layer.ffn == FfnKind::dense || layer.experts % c.moe.expert_groups == 0) continue;
      return problems.add("moe.expert_groups", fmt::format("expected a divisor of the {} experts of a layer, "
                                                           "got {}",
                                                           layer.experts, c.moe.expert_groups));
    }
  }
  if (c.moe.chosen_groups > c.moe.expert_groups) {
    problems.add("moe.chosen_groups", fmt::format("expected at most moe.expert_groups ({}), got {}",
                                                  c.moe.expert_groups, c.moe.chosen_groups));
  }
  for (const BlockRun& run : c.blocks) {
    for (const BlockSpec& layer : run.pattern) {
      const int64_t within = layer.experts / c.moe.expert_groups * c.moe.chosen_groups;
      if (layer.ffn == FfnKind::dense || c.moe.top_k <= within) continue;
      return problems.add("moe.chosen_groups",
                          fmt::format("a token's {} experts (moe.top_k) do not fit into {} of {} groups of a "
                                      "layer's {} experts: choose more groups",
                                      c.moe.top_k, c.moe.chosen_groups, c.moe.expert_groups, layer.experts));
    }
  }
  if (c.moe.score == moe::RouterScore::sigmoid && c.moe.z_coefficient > 0) {
    problems.add("moe.z_coefficient",
                 "the z-loss holds softmax's normaliser, which sigmoid scores do not have: set it to 0, or "
                 "moe.score softmax");
  }
  if (c.moe.choice_noise != moe::ChoiceNoise::none &&
      (c.moe.balance_bias || c.moe.expert_groups > 1 || c.moe.score != moe::RouterScore::softmax)) {
    problems.add("moe.choice_noise",
                 "noise is for a plain softmax router: set it to none, or leave out moe.score sigmoid, "
                 "moe.balance_bias and moe.expert_groups");
  }
  if (c.moe.balance_scope == moe::BalanceScope::group && c.moe.group_tokens == 0) {
    problems.add("moe.balance_scope", "group needs moe.group_tokens: set it, or use micro_batch");
  }
  if (c.moe.choice_noise == moe::ChoiceNoise::rsample && c.moe.top_k != 1) {
    problems.add("moe.choice_noise", fmt::format("rsample needs top_k 1, got {}", c.moe.top_k));
  }
  if (c.moe.choice_noise == moe::ChoiceNoise::second_expert && c.moe.top_k != 2) {
    problems.add("moe.choice_noise", fmt::format("second_expert needs top_k 2, got {}", c.moe.top_k));
  }
}

// In floating point: before anybody multiplies these sizes as integers.
void check_size(const ModelConfig& c, Problems& problems) {
  const auto hidden = static_cast<double>(c.hidden);
  const auto mlp = [&](int64_t own_width) {
    const double inner = own_width > 0      ? static_cast<double>(own_width)
                         : c.ffn_hidden > 0 ? static_cast<double>(c.ffn_hidden)
                                            : 4.0 * hidden;
    return static_cast<double>(nn::MlpShape{c.activation}.matrices()) * hidden * inner;
  };
  const double heads = static_cast<double>(c.heads + c.key_value_heads()) * 2.0;
  const double head_width = c.head_dim > 0 ? static_cast<double>(c.head_dim) : hidden / double(c.heads);
  struct Part {
    const char* key;
    const char* sizes;
    double parameters;
  };
  std::array<Part, 4> parts = {{{"vocab_size", "vocab_size x hidden", hidden * double(c.padded_vocab())},
                                {"max_sequence", "max_sequence x hidden", hidden * double(c.max_sequence)},
                                {"hidden", "hidden x (heads x head_dim + ffn_hidden) x layers", 0},
                                {"blocks", "experts x hidden x expert_hidden x layers", 0}}};
  if (c.positions != Positions::learned) parts[1].parameters = 0;
  for (const BlockRun& run : c.blocks) {
    for (const BlockSpec& layer : run.pattern) {
      const auto layers = static_cast<double>(run.repeat);
      parts[2].parameters += layers * hidden * heads * head_width;
      if (layer.ffn == FfnKind::dense) parts[2].parameters += layers * mlp(0);
      if (layer.ffn == FfnKind::residual_moe) parts[2].parameters += layers * mlp(c.moe.residual_hidden);
      if (layer.ffn != FfnKind::dense) {
        parts[3].parameters += layers * double(layer.experts) * mlp(c.moe.expert_hidden);
      }
    }
  }
  double sum = 0;
  for (const Part& part : parts) sum += part.parameters;
  if (!(sum > kMostParameters)) return;
  const auto fewer = [](const Part& a, const Part& b) { return a.parameters < b.parameters; };
  const Part& most = *std::max_element(parts.begin(), parts.end(), fewer);
  problems.add(most.key,
               fmt::format("expected a model of at most {:.0e} parameters, got {:.2g}, of which {:.2g} "
                           "in {}: lower one of these",
                           kMostParameters, sum, most.parameters, most.sizes));
}

}  // namespace

void BlockSpec::validate(Problems& problems) const {
  if (ffn == FfnKind::dense) {
    if (experts != 0) problems.add("experts", fmt::format("a dense layer has no experts, got {}", experts));
    if (expert_parallel != 1) problems.add("expert_parallel", "a dense layer has no experts to share");
    return;
  }
  if (experts < 1)
    problems.add("experts",
                 fmt::format("expected at least 1 for a {} layer, got {}", enum_text(ffn), experts));
  if (experts % expert_parallel != 0) {
    problems.add("expert_parallel", fmt::format("expected a divisor of the layer's {} experts, got {}",
                                                experts, expert_parallel));
  }
}

void ModelConfig::validate(Problems& problems) const {
  if (head_dim == 0 && heads > 0 && hidden % heads != 0) {
    problems.add("heads",
                 fmt::format("expected a divisor of hidden ({}), or head_dim given; got {}", hidden, heads));
  }
  if (kv_heads > 0 && heads % kv_heads != 0) {
    problems.add("kv_heads", fmt::format("expected a divisor of heads ({}), got {}", heads, kv_heads));
  }
  if (positions == Positions::rope && heads > 0 && head_width() % 2 != 0) {
    problems.add("head_dim",
                 fmt::format("rotary positions rotate pairs: expected an even width, got {}", head_width()));
  }
  if (qk_norm == nn::QkNorm::head && heads > 0 && head_width() == 1) {
    problems.add("qk_norm",
                 "normalising a head of one number leaves nothing but its sign: make heads wider, or say "
                 "width or none");
  }
  if (mup_base_hidden > 0 && init != InitRule::normal) {
    problems.add("mup_base_hidden", "its rules scale a constant init_std: set it to 0, or use init normal");
  }
  if (mup_base_head_dim > 0 && mup_base_hidden == 0) {
    problems.add("mup_base_head_dim", "is a part of muP: set mup_base_hidden too, or only attention_scale");
  }
  if (mup_base_head_dim > 0 && attention_scale > 0) {
    problems.add(
        "mup_base_head_dim",
        fmt::format("decides how attention scores are scaled, and attention_scale ({}) does: set one "
                    "of them to 0",
                    attention_scale));
  }
  if (layer_count() > kMostLayers) {
    problems.add("blocks", fmt::format("expected at most {} layers (repeat x pattern), got {}", kMostLayers,
                                       layer_count()));
  }
  if (has_experts()) check_experts(*this, problems);
  check_size(*this, problems);
}

int64_t ModelConfig::layer_count() const {
  int64_t count = 0;
  for (const BlockRun& run : blocks) count += run.repeat * static_cast<int64_t>(run.pattern.size());
  return count;
}

bool ModelConfig::has(FfnKind ffn) const {
  return std::any_of(blocks.begin(), blocks.end(), [ffn](const BlockRun& run) {
    return std::any_of(run.pattern.begin(), run.pattern.end(),
                       [ffn](const BlockSpec& layer) { return layer.ffn == ffn; });
  });
}

std::vector<BlockSpec> ModelConfig::layers() const {
  std::vector<BlockSpec> all;
  for (const BlockRun& run : blocks) {
    for (int64_t i = 0; i < run.repeat; ++i) all.insert(all.end(), run.pattern.begin(), run.pattern.end());
  }
  return all;
}

std::vector<int> ModelConfig::expert_parallel_sizes() const {
  std::vector<int> sizes;
  for (const BlockSpec& layer : layers()) {
    if (layer.ffn != FfnKind::dense) sizes.push_back(layer.expert_parallel);
  }
  return sizes;
}

std::vector<CutSize> cut_sizes(const ModelConfig& m) {
  std::vector<CutSize> sizes{
      {"model.heads", "model.heads", m.heads},
      {"model.kv_heads", "the key and value heads", m.key_value_heads()},
      {"model.vocab_multiple", "the vocabulary with its padding", m.padded_vocab()},
  };
  if (m.has(FfnKind::dense)) sizes.push_back({"model.ffn_hidden", "the width of MLPs", m.ffn_width()});
  if (m.has(FfnKind::residual_moe)) {
    sizes.push_back(
        {"model.moe.residual_hidden", "the width of the MLPs beside experts", m.residual_width()});
  }
  return sizes;
}

ModelConfig share_experts(ModelConfig config, int ranks) {
  for (BlockRun& run : config.blocks) {
    for (BlockSpec& block : run.pattern) block.expert_parallel = ranks;
  }
  return config;
}

ModelConfig fit_to_ranks(ModelConfig config, int world_size) {
  for (BlockRun& run : config.blocks) {
    for (BlockSpec& block : run.pattern) {
      if (block.ffn == FfnKind::dense) continue;
      const auto common = static_cast<int>(std::gcd(static_cast<int64_t>(world_size), block.experts));
      block.expert_parallel = std::min(block.expert_parallel, common);
      while (common % block.expert_parallel != 0) --block.expert_parallel;
    }
  }
  return config;
}

ModelCounts count(const ModelConfig& c, int64_t sequence_length) {
  const int64_t h = c.hidden, d = c.head_width(), vocab = c.padded_vocab();
  const int64_t q = c.heads * d, kv = c.key_value_heads() * d;
  const int64_t bias = c.bias ? 1 : 0, norm = c.norm == nn::NormKind::layer_norm ? 2 * h : h;
  const int64_t qk_norm = c.qk_norm == nn::QkNorm::none ? 0 : c.qk_norm == nn::QkNorm::head ? 2 * d : q + kv;
  const int64_t matrices = nn::MlpShape{c.activation}.matrices();

  // Matrix and bias parameters of each part.
  const int64_t attention_matrices = h * (q + 2 * kv) + q * h;
  const int64_t attention_biases = bias * (q + 2 * kv + h);
  struct Mlp {
    int64_t matrices, biases;
    int64_t all() const { return matrices + biases; }
  };
  const auto mlp = [&](int64_t f) { return Mlp{matrices * h * f, bias * ((matrices - 1) * f + h)}; };
  const Mlp expert = mlp(c.expert_width());

  ModelCounts counts;
  // The head is a product for every token; a tied table is counted once as parameters.
  int64_t active_matrices = vocab * h;
  int64_t dense = vocab * h * (c.tied_embeddings ? 1 : 2) + norm;
  if (c.positions == Positions::learned) dense += c.max_sequence * h;
  int64_t active_experts = 0;
  const std::vector<BlockSpec> layers = c.layers();
  for (const BlockSpec& layer : layers) {
    dense += attention_matrices + attention_biases + qk_norm + 2 * norm;
    active_matrices += attention_matrices;
    if (layer.ffn != FfnKind::moe) {
      const Mlp fixed = mlp(layer.ffn == FfnKind::dense ? c.ffn_width() : c.residual_width());
      dense += fixed.all();
      active_matrices += fixed.matrices;
    }
    if (layer.ffn == FfnKind::dense) continue;
    dense += layer.experts * (h + (c.moe.balance_bias ? 1 : 0));  // router
    const bool residual = layer.ffn == FfnKind::residual_moe;
    if (residual && c.moe.residual_mix == moe::ResidualMix::sequential) dense += norm;
    counts.expert_parameters += layer.experts * expert.all();
    active_experts += c.moe.top_k * expert.all();
    active_matrices += layer.experts * h + c.moe.top_k * expert.matrices;
    if (residual && c.moe.has_coefficients()) {
      const int64_t coefficients = c.moe.residual_mix == moe::ResidualMix::softmax ? 2 : 1;
      dense += coefficients * (h + (c.moe.coefficient_bias ? 1 : 0));
      active_matrices += coefficients * h;
    }
  }
  counts.parameters = dense + counts.expert_parameters;
  counts.active_parameters = dense + active_experts;
  counts.flops_per_token =
      6.0 * static_cast<double>(active_matrices) +
      12.0 * static_cast<double>(layers.size()) *
          static_cast<double>((c.window > 0 ? std::min(c.window, sequence_length) : sequence_length) * q);
  return counts;
}

}  // namespace ziggurat::model
