// The GPT: embeddings, a list of blocks, a final norm and the (tied) vocabulary head.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include <ziggurat/model/model_config.h>
#include <ziggurat/moe/moe_ffn.h>
#include <ziggurat/nn/layers.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::model {

// Token ids of one micro-batch; the memory must live until the micro-batch's backward is done.
struct TokenBatch {
  const int32_t* tokens = nullptr;   // [sequences, length]
  const int32_t* targets = nullptr;  // [sequences, length]; -1: not counted
  int64_t sequences = 0, length = 0;
  // Of packed documents, [sequences, length] each; see nn::Sequences for what null means.
  const int32_t* positions = nullptr;
  const int32_t* first_key = nullptr;
  const int32_t* last_key = nullptr;
  // With a cache, the tokens extend sequences that it holds. Then `length` is 1, and `positions` are those of
  // `cached.rows`.
  nn::CachedRows cached = {};
  // In inference, the rows whose hidden states are wanted, ascending; nothing: all. The last layer goes on
  // with these alone once all have been attended to.
  std::optional<std::span<const int32_t>> wanted = {};
  // Of each MoE layer, f64 [kernels::router_sums_size(experts)] to which it adds what it did; empty: the
  // model's own moe_stats(), which are for one user at a time.
  std::span<const Tensor> moe_sums = {};
  int64_t size() const { return sequences * length; }
};

// x += attention(norm(x)); x += feed_forward(norm(x)), the latter of the wanted rows; where experts and MLP
// follow each other (moe::ResidualMix::sequential) then x += mlp(norm(x)).
class Block {
 public:
  Block(nn::ParamStore& store, const ModelConfig& config, const BlockSpec& spec, int64_t layer,
        const ProcessGroups& groups);
  // moe_sums: as of TokenBatch; null: its own statistics.
  Var operator()(Tape& tape, Var x, const nn::Sequences& sequences, const Tensor* moe_sums = nullptr) const;

  // The experts' router; null for a dense layer.
  moe::Router* router() const;

 private:
  nn::Norm norm1_;
  nn::Attention attention_;
  nn::Norm norm2_;
  std::variant<std::unique_ptr<nn::Mlp>, std::unique_ptr<moe::MoeFfn>, std::unique_ptr<moe::ResidualMoeFfn>>
      ffn_;
  std::unique_ptr<nn::Norm> norm3_;  // of an MLP after the experts
  std::unique_ptr<nn::Mlp> mlp_after_;
  double dropout_;
  int64_t layer_;
};

class Gpt {
 public:
  // Registers every parameter in `store`; call store.finalize() afterwards. `recompute`: keep only each
  // block's input in forward and run the block again in backward. `groups` and `store` must outlive the
  // model.
  Gpt(const ModelConfig& config, nn::ParamStore& store, const ProcessGroups& groups, bool recompute = false);

  // Hidden states after the final norm, [sequences * length, hidden], or of the wanted rows only; where ranks
  // share the model by tensor parallelism, this rank's rows of the micro-batch.
  Var forward(Tape& tape, const TokenBatch& batch) const;

  // Logits [n, padded vocab], in the accumulation dtype, of rows [begin, begin + n) of forward()'s hidden
  // states.
  Var logits(Tape& tape, Var hidden, int64_t begin, int64_t n) const;

  // Ranks that work on the same rows, each with its part of every matrix (see nn::TensorParallel).
  int alike_ranks() const { return tokens_alike_ ? tensor_.size() : 1; }
  // Whether ranks with other texts need this one in every forward: for its experts.
  bool in_step() const { return in_step_; }
  int64_t own_key_value_heads() const;  // of a layer, whose keys and values this rank keeps

  // For TokenBatch::cached.
  nn::KvCache make_cache(int64_t blocks, int64_t block) const;

  // From now on, while micro-batches are queued kernel by kernel, told of what comes out of the embedding
  // (layer -1), each block and the final norm (as many as layers) in forward(); empty: nobody is.
  using Observer = std::function<void(int64_t layer, const Tensor& output)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  // From now on, told of every routing in forward(), whose tables live until the next micro-batch; empty:
  // nobody is.
  using RoutingObserver = std::function<void(int64_t layer, const ops::Routing& routing)>;
  void observe_routing(const RoutingObserver& observer);

  // The vocabulary's, [padded vocab, hidden]: logits are hidden states times its rows. What is to become of
  // them in training is an objective's (objective/objective.h).
  const Param& head() const { return *head_; }
  // The ranks that share the head, each its part of the rows.
  Communicator& ranks_of_head() const { return tensor_; }
  // forward()'s hidden states of all rows, on each of these ranks: what its part of the head takes.
  Var forward_to_head(Tape& tape, const TokenBatch& batch) const;

  const ModelConfig& config() const { return config_; }
  bool in_panels() const { return head_->panels; }      // ParamStore::to_panels
  DType dtype() const { return head_->value.dtype(); }  // of matrices, activations, keys and values
  Device device() const { return head_->value.device(); }
  const std::vector<moe::MoeStats*>& moe_stats() const { return moe_stats_; }  // of the MoE layers, in order

  // After a step: moves every layer's bias of the choice towards even loads (moe::Router). Collective.
  void balance_experts(Stream& stream);

 private:
  Var embed(Tape& tape, const TokenBatch& batch) const;
  Var embed_alike_rows(Tape& tape, const TokenBatch& batch) const;
  // Waits for the values of what is used from here on: the embeddings (-1), a block, or what comes after
  // them.
  void await_values(int64_t layer) const;
  Var embed_own_rows(Tape& tape, const TokenBatch& batch) const;

  ModelConfig config_;
  const nn::ParamStore& store_;
  std::vector<std::vector<size_t>> groups_of_;  // of its parameters, by layer + 1
  bool recompute_;
  Communicator& tensor_;
  bool tokens_alike_, in_step_;
  const Param* token_embedding_;
  const Param* position_embedding_ = nullptr;  // learned positions only
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<moe::Router*> routers_;
  std::vector<moe::MoeStats*> moe_stats_;
  std::unique_ptr<nn::Norm> final_norm_;
  const Param* head_;  // the token embedding when tied
  Observer observer_;
};

}  // namespace ziggurat::model
