// A model that remembers what it has read: prompts in one pass, then one token at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include <ziggurat/model/gpt.h>

namespace ziggurat::infer {

// Several sequences, each up to `context` tokens long. What a sequence's tokens predict does not depend on
// the other sequences, nor (but for rounding) on how many tokens came at once: experts drop nothing, whatever
// eval_capacity_factor says.
class Decoder {
 public:
  // `model` must outlive the decoder; its parameters are read only. Prompts are read in pieces of
  // `prefill_tokens`: enough for products near their peak, and it bounds the memory of the activations.
  // Throws Error(argument) if the model's sequences are shorter than `context`.
  // strict: a token's logits have the same bits whatever came along with it.
  Decoder(const model::Gpt& model, int64_t sequences, int64_t context, int64_t prefill_tokens = 512,
          Reproducible reproducible = Reproducible::layout);

  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t context() const { return context_; }
  int64_t vocabulary() const { return model_.config().vocab_size; }  // logits beyond are padding
  int64_t length(int64_t sequence) const { return lengths_.at(static_cast<size_t>(sequence)); }

  // The logits [n, padded vocab] after the last tokens, in f32 (f64 for an f64 model): valid until the next
  // call.

  // Forgets the sequence and reads these tokens (at least one, at most context()). -> [1, padded vocab]
  Tensor prefill(int64_t sequence, std::span<const int32_t> tokens);
  // Appends tokens[i] to sequences[i]; no sequence twice. Nothing is allocated. -> [tokens, padded vocab]
  // Throws Error(argument) where a sequence is full: prefill() it with the end of its text.
  Tensor step(std::span<const int32_t> sequences, std::span<const int32_t> tokens);

  // Appends tokens[i] to sequences[i], in this order; a sequence may come any number of times, and as much as
  // fits. The logits after the tokens numbered `rows` (ascending) come in pieces: visit(k, logits) with those
  // of rows[k] and following ones, [n, padded vocab]. Runs forwards(tokens.size()) passes through the model.
  using LogitsVisitor = std::function<void(size_t first, const Tensor& logits)>;
  void read(std::span<const int32_t> sequences, std::span<const int32_t> tokens,
            std::span<const int32_t> rows, const LogitsVisitor& visit);
  int64_t forwards(int64_t tokens) const { return (tokens + prefill_tokens_ - 1) / prefill_tokens_; }

  // Sequence `to` becomes a copy of `from`.
  void copy(int64_t from, int64_t to);
  // Forgets all but the first `length` tokens.
  void truncate(int64_t sequence, int64_t length);

  const nn::KvCache& cache() const { return cache_; }
  // Kernels keep their times in `profile`, which must outlive them; null: no times.
  void set_profile(Profile* profile) { stream_.set_profile(profile); }

 private:
  // The rows of a forward of which logits are wanted, or nothing: of all.
  using Wanted = std::optional<std::span<const int32_t>>;
  Tensor run(int64_t sequences, int64_t length, const int32_t* tokens, const int32_t* of_sequence,
             const Wanted& wanted);

  const model::Gpt& model_;
  int64_t context_, prefill_tokens_;
  nn::KvCache cache_;
  Arena activations_, gradients_, workspace_;
  Stream stream_;
  Tape tape_;
  std::vector<int64_t> lengths_;               // of the sequences
  std::vector<int32_t> positions_, sequence_;  // of the rows under way
};

}  // namespace ziggurat::infer
