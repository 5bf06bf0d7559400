#include <ziggurat/model/model_config.h>

namespace ziggurat::model {

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
  for (const BlockSpec& layer : layers()) {
    if (layer.ffn != FfnKind::dense && layer.experts >= 1 && moe.top_k > layer.experts) {
      problems.add("moe.top_k", fmt::format("expected at most the {} experts of a layer, got {}",
                                            layer.experts, moe.top_k));
      break;
    }
  }
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

ModelConfig fit_to_ranks(ModelConfig config, int world_size) {
  for (BlockRun& run : config.blocks) {
    for (BlockSpec& block : run.pattern) {
      if (block.ffn == FfnKind::dense) continue;
      while (world_size % block.expert_parallel != 0 || block.experts % block.expert_parallel != 0) {
        --block.expert_parallel;
      }
    }
  }
  return config;
}

ModelCounts count(const ModelConfig& c, int64_t sequence_length) {
  const int64_t h = c.hidden, f = c.ffn_width(), d = c.head_width(), vocab = c.padded_vocab();
  const int64_t q = c.heads * d, kv = c.key_value_heads() * d;
  const int64_t bias = c.bias ? 1 : 0, norm = c.norm == nn::NormKind::layer_norm ? 2 * h : h;
  const bool gated = c.activation == nn::MlpKind::swiglu;

  // Matrix and bias parameters of each part.
  const int64_t attention_matrices = h * (q + 2 * kv) + q * h;
  const int64_t attention_biases = bias * (q + 2 * kv + h);
  const int64_t mlp_matrices = (gated ? 3 : 2) * h * f;
  const int64_t mlp_biases = bias * ((gated ? 2 : 1) * f + h);

  ModelCounts counts;
  // The head is a product for every token; a tied table is counted once as parameters.
  int64_t active_matrices = vocab * h;
  int64_t dense = vocab * h * (c.tied_embeddings ? 1 : 2) + norm;
  if (c.positions == Positions::learned) dense += c.max_sequence * h;
  int64_t active_experts = 0;
  const std::vector<BlockSpec> layers = c.layers();
  for (const BlockSpec& layer : layers) {
    dense += attention_matrices + attention_biases + 2 * norm;
    active_matrices += attention_matrices;
    if (layer.ffn != FfnKind::moe) {
      dense += mlp_matrices + mlp_biases;
      active_matrices += mlp_matrices;
    }
    if (layer.ffn == FfnKind::dense) continue;
    dense += layer.experts * h;  // router
    counts.expert_parameters += layer.experts * (mlp_matrices + mlp_biases);
    active_experts += c.moe.top_k * (mlp_matrices + mlp_biases);
    active_matrices += layer.experts * h + c.moe.top_k * mlp_matrices;
    if (layer.ffn == FfnKind::residual_moe && c.moe.residual_mix == moe::ResidualMix::softmax) {
      dense += 2 * h + (c.moe.coefficient_bias ? 2 : 0);
      active_matrices += 2 * h;
    }
  }
  counts.parameters = dense + counts.expert_parameters;
  counts.active_parameters = dense + active_experts;
  counts.flops_per_token =
      6.0 * static_cast<double>(active_matrices) +
      12.0 * static_cast<double>(layers.size()) * static_cast<double>(sequence_length * q);
  return counts;
}

}  // namespace ziggurat::model
