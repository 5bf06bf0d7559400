// Sequences that a model reads and remembers, told row by row what to read: for scoring, measuring, looking.
// Texts that are to be written are Engine's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/infer/block_pool.h>
#include <ziggurat/infer/executor.h>

namespace ziggurat::infer {

// Several sequences, each up to `context` tokens long. What a sequence's tokens predict does not depend on
// the other sequences, nor (but for rounding) on how many tokens came at once: experts drop nothing, whatever
// eval_capacity_factor says.
class Decoder {
 public:
  // `model` must outlive the decoder; its parameters are read only. What is read goes through it in pieces of
  // `pass_tokens`: enough for products near their peak, and it bounds the memory of the activations.
  // Throws Error(argument) if the model's sequences are shorter than `context`.
  // strict: a token's logits have the same bits whatever came along with it. `tokens`: of all sequences
  // together, each rounded up to whole blocks (tokens_of()), what copies share once; 0: all of them full.
  Decoder(const model::Gpt& model, int64_t sequences, int64_t context, int64_t pass_tokens = 512,
          Reproducible reproducible = Reproducible::layout, bool copies = false, int64_t tokens = 0);
  // In whole blocks: of a sequence so long, beside what it shares of another's beginning.
  static int64_t tokens_of(int64_t length, int64_t shared = 0);

  int64_t sequences() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t context() const { return context_; }
  int64_t vocabulary() const {  // logits beyond are padding
    return executor_.model().config().vocab_size;
  }
  int64_t length(int64_t sequence) const { return at(sequence).length; }

  // Appends tokens[i] to sequences[i], in this order; a sequence may come any number of times, and as much as
  // fits. The logits after the tokens numbered `rows` (ascending) come in pieces: visit(k, logits) with those
  // of rows[k] and following ones, [n, padded vocab]. Runs forwards(tokens.size()) passes through the model.
  // What a pass that failed was to read has not been read.
  using LogitsVisitor = Executor::LogitsVisitor;
  void read(std::span<const int32_t> sequences, std::span<const int32_t> tokens,
            std::span<const int32_t> rows, const LogitsVisitor& visit);
  int64_t forwards(int64_t tokens) const { return (tokens + pass_tokens_ - 1) / pass_tokens_; }
  // Passes without rows, while other ranks need the experts of this one.
  void idle(int64_t passes);

  // Sequence `to` becomes a copy of `from`, with which it shares what neither changes.
  void copy(int64_t from, int64_t to);
  // Forgets all but the first `length` tokens.
  void truncate(int64_t sequence, int64_t length);

  Executor& executor() { return executor_; }

 private:
  struct Sequence {
    int64_t length = 0;
    std::vector<int32_t> blocks;
    int32_t table = -1;  // in the pass under way
    int64_t reading = 0;
  };
  Sequence& at(int64_t sequence) { return sequences_.at(static_cast<size_t>(sequence)); }
  const Sequence& at(int64_t sequence) const { return sequences_.at(static_cast<size_t>(sequence)); }
  void make_room(Sequence& sequence, int64_t length);
  void plan(std::span<const int32_t> sequences, std::span<const int32_t> tokens);

  int64_t context_, pass_tokens_;
  BlockPool pool_;
  Executor executor_;
  std::vector<Sequence> sequences_;
  Pass pass_;
};

}  // namespace ziggurat::infer
