#include <cmath>

#include <ziggurat/model/gpt.h>
#include <ziggurat/ops/choose_rows.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>
#include <ziggurat/ops/embedding.h>

namespace ziggurat::model {

namespace {

double output_std(const ModelConfig& c) {  // GPT-2: the sum over 2 L residual branches keeps its variance
  return c.init_std / std::sqrt(2.0 * static_cast<double>(c.layer_count()));
}

nn::MlpShape mlp_shape(const ModelConfig& c, int64_t inner) {
  return {c.activation, c.hidden, inner, c.bias, c.init_std, output_std(c)};
}

nn::AttentionLayerShape attention_shape(const ModelConfig& c, int64_t layer) {
  return {c.hidden,       c.heads,       c.key_value_heads(),
          c.head_width(), c.bias,        c.positions == Positions::rope ? c.rope_theta : 0.0,
          c.qk_norm,      c.norm_eps,    c.dropout.attention,
          c.init_std,     output_std(c), layer};
}

}  // namespace

Block::Block(nn::ParamStore& store, const ModelConfig& c, const BlockSpec& spec, int64_t layer,
             const ProcessGroups& groups)
    : norm1_(store, fmt::format("blocks.{}.norm1", layer), c.norm, c.hidden, c.norm_eps),
      attention_(store, fmt::format("blocks.{}.attention", layer), attention_shape(c, layer)),
      norm2_(store, fmt::format("blocks.{}.norm2", layer), c.norm, c.hidden, c.norm_eps),
      dropout_(c.dropout.hidden),
      layer_(layer) {
  const std::string name = fmt::format("blocks.{}", layer);
  const moe::MoeShape experts{mlp_shape(c, c.expert_width()), mlp_shape(c, c.residual_width()), spec.experts,
                              spec.expert_parallel, layer};
  switch (spec.ffn) {
    case FfnKind::dense:
      ffn_ = std::make_unique<nn::Mlp>(store, name + ".mlp", mlp_shape(c, c.ffn_width()));
      break;
    case FfnKind::moe:
      ffn_ = std::make_unique<moe::MoeFfn>(store, name + ".moe", c.moe, experts, groups);
      break;
    case FfnKind::residual_moe:
      ffn_ = std::make_unique<moe::ResidualMoeFfn>(store, name, c.moe, experts, groups);
      break;
  }
}

Var Block::operator()(Tape& tape, Var x, const nn::Sequences& sequences, const Tensor* moe_sums) const {
  const auto site = [this](int64_t branch) { return 2 * layer_ + branch; };  // names the random numbers
  const Var attended = attention_(tape, norm1_(tape, x), sequences);
  if (sequences.wanted) x = ops::choose_rows(tape, x, *sequences.wanted);
  x = ops::dropout_add(tape, attended, x, dropout_, Purpose::hidden_dropout, site(0));
  const Var h = norm2_(tape, x);
  const int64_t length = sequences.wanted ? 1 : sequences.length;  // wanted rows are no whole sequences
  const Var fed = std::visit(
      [&]<class Ffn>(const std::unique_ptr<Ffn>& ffn) {
        if constexpr (std::is_same_v<Ffn, nn::Mlp>) {
          return (*ffn)(tape, h);
        } else {
          return (*ffn)(tape, h, length, moe_sums);
        }
      },
      ffn_);
  return ops::dropout_add(tape, fed, x, dropout_, Purpose::hidden_dropout, site(1));
}

Gpt::Gpt(const ModelConfig& c, nn::ParamStore& store, const ProcessGroups& groups, bool recompute)
    : config_(c), recompute_(recompute) {
  const nn::Init init = nn::Init::normal(c.init_std);
  const Shape table{c.padded_vocab(), c.hidden};
  token_embedding_ = &store.add({.name = "embed.token.weight",
                                 .global_shape = table,
                                 .init = init,
                                 .product_rows = c.tied_embeddings ? ops::kVocabularyTile : 0});
  if (c.positions == Positions::learned) {
    position_embedding_ = &store.add(
        {.name = "embed.position.weight", .global_shape = {c.max_sequence, c.hidden}, .init = init});
  }
  const std::vector<BlockSpec> layers = c.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    blocks_.push_back(std::make_unique<Block>(store, c, layers[i], static_cast<int64_t>(i), groups));
    if (moe::MoeStats* stats = blocks_.back()->moe_stats()) moe_stats_.push_back(stats);
  }
  final_norm_ = std::make_unique<nn::Norm>(store, "final_norm", c.norm, c.hidden, c.norm_eps);
  head_ = c.tied_embeddings ? token_embedding_
                            : &store.add({.name = "head.weight",
                                          .global_shape = table,
                                          .init = init,
                                          .product_rows = ops::kVocabularyTile});
}

Var Gpt::forward(Tape& tape, const TokenBatch& batch) const {
  check(batch.length <= config_.max_sequence, ErrorKind::argument, "[gpt] {} tokens exceed max_sequence {}",
        batch.length, config_.max_sequence);
  check(batch.moe_sums.empty() || batch.moe_sums.size() == moe_stats_.size(), ErrorKind::argument,
        "[gpt] expected sums of {} MoE layers, got {}", moe_stats_.size(), batch.moe_sums.size());
  Var x = ops::embedding(tape, batch.tokens, batch.size(), batch.length, *token_embedding_,
                         position_embedding_, batch.positions);
  x = ops::dropout(tape, x, config_.dropout.embedding, Purpose::embedding_dropout, 0);
  const auto tell = [&](int64_t layer) {
    if (observer_) observer_(layer, x.value());
  };
  tell(-1);
  int64_t layer = 0;
  nn::Sequences sequences{batch.length, batch.positions, batch.first_key, batch.cached};
  if (batch.cached.cache != nullptr && config_.positions == Positions::rope) {
    sequences.cached.rows.rotations = ops::rotations_of(tape, x.dtype(), batch.positions, batch.size(),
                                                        config_.head_width(), config_.rope_theta);
  }
  const Tensor* moe_sums = batch.moe_sums.data();
  for (const auto& block : blocks_) {
    if (block == blocks_.back()) sequences.wanted = batch.wanted;
    const Tensor* const sums = moe_sums != nullptr && block->moe_stats() != nullptr ? moe_sums++ : nullptr;
    const auto run = [block = block.get(), sequences, sums](Tape& t, Var in) {
      return (*block)(t, in, sequences, sums);
    };
    x = recompute_ ? tape.recompute(x, run) : run(tape, x);
    tell(layer++);
  }
  x = (*final_norm_)(tape, x);
  tell(layer);
  return x;
}

Tensor Gpt::loss(Tape& tape, const TokenBatch& batch, double* token_losses) const {
  ops::LossArgs args;
  args.vocab_size = config_.vocab_size;
  args.token_losses = token_losses;
  return ops::cross_entropy(tape, forward(tape, batch), *head_, batch.targets, args);
}

Var Gpt::logits(Tape& tape, Var hidden, int64_t begin, int64_t n) const {
  return ops::logits(tape, tape.constant(hidden.value().rows(begin, begin + n)), *head_);
}

nn::KvCache Gpt::make_cache(int64_t blocks, int64_t block) const {
  return nn::KvCache({static_cast<int64_t>(blocks_.size()), config_.key_value_heads(), config_.head_width(),
                      blocks, block},
                     head_->value.dtype());
}

moe::MoeStats* Block::moe_stats() const {
  return std::visit(
      [](const auto& ffn) -> moe::MoeStats* {
        if constexpr (std::is_same_v<std::decay_t<decltype(*ffn)>, nn::Mlp>) {
          return nullptr;
        } else {
          return &ffn->stats();
        }
      },
      ffn_);
}

}  // namespace ziggurat::model
