#include <algorithm>
#include <cmath>

#include <ziggurat/model/gpt.h>
#include <ziggurat/model/width_rules.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/alike_ranks.h>
#include <ziggurat/ops/choose_rows.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>
#include <ziggurat/ops/embedding.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat::model {

namespace {

// Standard deviations of the initial values of a matrix that reads the residual stream, and of one with so
// many inputs that adds to it.
double inner_std(const ModelConfig& c) {
  if (c.init == InitRule::normal) return c.init_std;
  return std::sqrt(c.init_scale / static_cast<double>(c.hidden));
}
double output_std(const ModelConfig& c, int64_t inputs) {
  if (c.init == InitRule::variance_scaling) return std::sqrt(c.init_scale / static_cast<double>(inputs));
  // GPT-2: the sum over 2 L residual branches keeps its variance
  return c.init_std / std::sqrt(2.0 * static_cast<double>(c.layer_count()));
}

nn::MlpShape mlp_shape(const ModelConfig& c, int64_t inner, nn::TensorParallel tensor = {}) {
  return {c.activation,
          c.hidden,
          inner,
          c.bias,
          inner_std(c),
          output_std(c, inner),
          c.init == InitRule::variance_scaling,
          tensor};
}

nn::TensorParallel cut_by(const ProcessGroups& groups) {
  return {&groups.tp(), groups.plan().tokens_alike()};
}

nn::AttentionLayerShape attention_shape(const ModelConfig& c, int64_t layer, nn::TensorParallel tensor) {
  nn::AttentionLayerShape s;
  s.width = c.hidden, s.heads = c.heads, s.kv_heads = c.key_value_heads(), s.head_dim = c.head_width();
  s.bias = c.bias;
  s.rope_theta = c.positions == Positions::rope ? c.rope_theta : 0.0;
  s.qk_norm = c.qk_norm, s.norm_eps = c.norm_eps;
  s.dropout = c.dropout.attention;
  s.init_std = inner_std(c), s.output_init_std = output_std(c, c.heads * c.head_width());
  s.layer = layer;
  s.scale = c.score_scale();
  s.window = c.window;
  s.tensor = tensor;
  // Scores start as if they were scaled as usual: the factor is the queries' instead (flaxformer).
  const double usual = 1.0 / std::sqrt(static_cast<double>(c.head_width()));
  if (c.init == InitRule::variance_scaling) s.query_init_factor = usual / c.score_scale();
  return s;
}

}  // namespace

Block::Block(nn::ParamStore& store, const ModelConfig& c, const BlockSpec& spec, int64_t layer,
             const ProcessGroups& groups)
    : norm1_(store, fmt::format("blocks.{}.norm1", layer), c.norm, c.hidden, c.norm_eps),
      attention_(store, fmt::format("blocks.{}.attention", layer), attention_shape(c, layer, cut_by(groups))),
      norm2_(store, fmt::format("blocks.{}.norm2", layer), c.norm, c.hidden, c.norm_eps),
      dropout_(c.dropout.hidden),
      layer_(layer) {
  const std::string name = fmt::format("blocks.{}", layer);
  const moe::MoeShape experts{
      mlp_shape(c, c.expert_width(), {&groups.expert_tp(), groups.plan().tokens_alike()}),
      mlp_shape(c, c.residual_width(), cut_by(groups)), spec.experts, spec.expert_parallel, layer};
  switch (spec.ffn) {
    case FfnKind::dense:
      ffn_ = std::make_unique<nn::Mlp>(store, name + ".mlp", mlp_shape(c, c.ffn_width(), cut_by(groups)));
      break;
    case FfnKind::moe:
      ffn_ = std::make_unique<moe::MoeFfn>(store, name + ".moe", c.moe, experts, groups);
      break;
    case FfnKind::residual_moe:
      if (c.moe.residual_mix == moe::ResidualMix::sequential) {
        ffn_ = std::make_unique<moe::MoeFfn>(store, name + ".moe", c.moe, experts, groups);
        norm3_ = std::make_unique<nn::Norm>(store, name + ".norm3", c.norm, c.hidden, c.norm_eps);
        mlp_after_ = std::make_unique<nn::Mlp>(store, name + ".mlp", experts.residual);
        break;
      }
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
  x = ops::dropout_add(tape, fed, x, dropout_, Purpose::hidden_dropout, site(1));
  if (mlp_after_ == nullptr) return x;
  const int64_t own_site = -1 - layer_;  // no branch of another layer has it
  return ops::dropout_add(tape, (*mlp_after_)(tape, (*norm3_)(tape, x)), x, dropout_, Purpose::hidden_dropout,
                          own_site);
}

Gpt::Gpt(const ModelConfig& c, nn::ParamStore& store, const ProcessGroups& groups, bool recompute)
    : config_(c),
      store_(store),
      recompute_(recompute),
      tensor_(groups.tp()),
      tokens_alike_(groups.plan().tokens_alike()) {
  const std::vector<int>& shared_by = groups.plan().ep_sizes();
  in_step_ = (!shared_by.empty() && shared_by.back() > 1) || groups.expert_tp().size() > tensor_.size();
  size_t registered = store.entries().size();
  const auto end_of_layer = [&] {
    std::vector<size_t>& its = groups_of_.emplace_back();
    for (; registered < store.entries().size(); ++registered) {
      const auto group = static_cast<size_t>(store.entries()[registered].group);
      if (std::find(its.begin(), its.end(), group) == its.end()) its.push_back(group);
    }
  };
  const nn::Init init = nn::Init::normal(c.init_std);
  const Shape table{c.padded_vocab(), c.hidden};
  std::vector<Box> part;  // of a table of the vocabulary
  if (tensor_.size() > 1) part = nn::cut_rows(table, {table[0]}, tensor_.rank(), tensor_.size());
  const double embedding_std = c.embedding_init_std > 0 ? c.embedding_init_std : c.init_std;
  token_embedding_ = &store.add({.name = "embed.token.weight",
                                 .global_shape = table,
                                 .init = nn::Init::normal(embedding_std),
                                 .product = c.tied_embeddings,
                                 .cut = part});
  if (c.positions == Positions::learned) {
    position_embedding_ = &store.add(
        {.name = "embed.position.weight", .global_shape = {c.max_sequence, c.hidden}, .init = init});
  }
  end_of_layer();
  const std::vector<BlockSpec> layers = c.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    blocks_.push_back(std::make_unique<Block>(store, c, layers[i], static_cast<int64_t>(i), groups));
    if (moe::Router* router = blocks_.back()->router()) {
      routers_.push_back(router);
      moe_stats_.push_back(&router->stats());
    }
    end_of_layer();
  }
  final_norm_ = std::make_unique<nn::Norm>(store, "final_norm", c.norm, c.hidden, c.norm_eps);
  head_ =
      c.tied_embeddings
          ? token_embedding_
          : &store.add({.name = "head.weight",
                        .global_shape = table,
                        .init = c.init == InitRule::normal ? init : nn::Init::truncated_normal(inner_std(c)),
                        .product = true,
                        .cut = part});
  end_of_layer();
  apply_width_rules(c, store);
}

void Gpt::await_values(int64_t layer) const {
  for (const size_t group : groups_of_[static_cast<size_t>(layer + 1)]) store_.await_values(group);
}

// Every rank looks up all tokens in its part of the table.
Var Gpt::embed_own_rows(Tape& tape, const TokenBatch& batch) const {
  const int64_t part = tensor_.rank(), all = batch.size(), n = all / tensor_.size();
  check(all % tensor_.size() == 0, ErrorKind::config,
        "parallel.tensor: {} ranks cannot share a micro-batch of {} x {} tokens evenly: choose a divisor of "
        "batch.sequence_length",
        tensor_.size(), batch.sequences, batch.length);
  const Var x =
      ops::sum_rows(tape,
                    ops::embedding_of_part(tape, batch.tokens, all, batch.length, *token_embedding_,
                                           part * token_embedding_->value.dim(0), config_.padded_vocab()),
                    tensor_);
  if (position_embedding_ == nullptr) return x;
  const int32_t* const positions =
      batch.positions != nullptr
          ? batch.positions + part * n
          : ops::counted_positions(tape, *position_embedding_, part * n, n, batch.length);
  return ops::add(tape, x, ops::embedding(tape, positions, n, batch.length, *position_embedding_));
}

// Every rank looks up all tokens in its part of the table, and has them all.
Var Gpt::embed_alike_rows(Tape& tape, const TokenBatch& batch) const {
  const int64_t n = batch.size(), first = tensor_.rank() * token_embedding_->value.dim(0);
  const Var own = ops::embedding_of_part(tape, batch.tokens, n, batch.length, *token_embedding_, first,
                                         config_.padded_vocab());
  const Var x = ops::join(tape, own, tensor_);
  if (position_embedding_ == nullptr) return x;
  return ops::add(tape, x, ops::embedding(tape, batch.positions, n, batch.length, *position_embedding_));
}

Var Gpt::embed(Tape& tape, const TokenBatch& batch) const {
  if (tensor_.size() > 1) return tokens_alike_ ? embed_alike_rows(tape, batch) : embed_own_rows(tape, batch);
  return ops::embedding(tape, batch.tokens, batch.size(), batch.length, *token_embedding_,
                        position_embedding_, batch.positions);
}

Var Gpt::forward(Tape& tape, const TokenBatch& batch) const {
  check(batch.length <= config_.max_sequence, ErrorKind::argument, "[gpt] {} tokens exceed max_sequence {}",
        batch.length, config_.max_sequence);
  check(
      tensor_.size() == 1 || tokens_alike_ == (batch.cached.cache != nullptr), ErrorKind::internal,
      "[gpt] of {} ranks that share a model's matrices, those with parts of the tokens train, and those with "
      "all of them extend cached sequences",
      tensor_.size());
  check(batch.moe_sums.empty() || batch.moe_sums.size() == moe_stats_.size(), ErrorKind::argument,
        "[gpt] expected sums of {} MoE layers, got {}", moe_stats_.size(), batch.moe_sums.size());
  await_values(-1);
  Var x = embed(tape, batch);
  x = ops::dropout(tape, x, config_.dropout.embedding, Purpose::embedding_dropout, 0);
  const auto tell = [&](int64_t layer) {
    if (observer_) observer_(layer, x.value());
  };
  tell(-1);
  int64_t layer = 0;
  nn::Sequences sequences{batch.length, batch.positions, batch.first_key, batch.last_key, batch.cached};
  if (batch.cached.cache != nullptr && config_.positions == Positions::rope) {
    sequences.cached.rows.rotations = ops::rotations_of(tape, x.dtype(), batch.positions, batch.size(),
                                                        config_.head_width(), config_.rope_theta);
  }
  const Tensor* moe_sums = batch.moe_sums.data();
  for (const auto& block : blocks_) {
    if (block == blocks_.back()) sequences.wanted = batch.wanted;
    const Tensor* const sums = moe_sums != nullptr && block->router() != nullptr ? moe_sums++ : nullptr;
    await_values(layer);
    const auto run = [block = block.get(), sequences, sums](Tape& t, Var in) {
      return (*block)(t, in, sequences, sums);
    };
    x = recompute_ ? tape.recompute(x, run) : run(tape, x);
    tell(layer++);
  }
  await_values(layer);
  x = (*final_norm_)(tape, x);
  tell(layer);
  return x;
}

Var Gpt::forward_to_head(Tape& tape, const TokenBatch& batch) const {
  return ops::gather_rows(tape, forward(tape, batch), tensor_, ops::Use::apart);
}

Var Gpt::logits(Tape& tape, Var hidden, int64_t begin, int64_t n) const {
  const Var own = ops::logits(tape, tape.constant(hidden.value().rows(begin, begin + n)), *head_);
  return tokens_alike_ ? ops::gather_columns(tape, own, tensor_) : own;
}

int64_t Gpt::own_key_value_heads() const {
  return std::max<int64_t>(1, config_.key_value_heads() / tensor_.size());
}

nn::KvCache Gpt::make_cache(int64_t blocks, int64_t block) const {
  return nn::KvCache(
      {static_cast<int64_t>(blocks_.size()), own_key_value_heads(), config_.head_width(), blocks, block},
      head_->value.dtype(), device());
}

void Gpt::observe_routing(const RoutingObserver& observer) {
  for (moe::Router* router : routers_) {
    const int64_t layer = router->stats().layer();
    router->observe(observer ? [observer, layer](const ops::Routing& r) { observer(layer, r); }
                             : std::function<void(const ops::Routing&)>());
  }
}

void Gpt::balance_experts(Stream& stream) {
  if (config_.moe.balance_bias) store_.await_values();
  for (moe::Router* router : routers_) router->balance(stream);
}

moe::Router* Block::router() const {
  return std::visit(
      [](const auto& ffn) -> moe::Router* {
        if constexpr (std::is_same_v<std::decay_t<decltype(*ffn)>, nn::Mlp>) {
          return nullptr;
        } else {
          return &ffn->router();
        }
      },
      ffn_);
}

}  // namespace ziggurat::model
