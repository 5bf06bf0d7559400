// How likely a model finds texts, and what it writes: many requests at once, on any number of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/infer/decoder.h>
#include <ziggurat/model/gpt.h>

namespace ziggurat::eval {

// Token ids; at least one of each.
struct TokenRequest {
  std::vector<int32_t> context, continuation;
};

struct Score {
  double log_likelihood = 0;  // nats, of the whole continuation after the context
  bool greedy = true;         // the continuation is what greedy decoding would write
  bool operator==(const Score&) const = default;
};

struct ScorerOptions {
  int64_t length = 0;           // tokens that the model sees at once
  int64_t batch_tokens = 1024;  // of one pass through the model
  int64_t sequences = 128;      // at once
  // strict: scores have the same bits with any batch_tokens, on any number of ranks, whatever is scored
  // along.
  Reproducible reproducible = Reproducible::strict;
  bool copies = false;  // of weights (infer::ExecutorOptions): for scoring much
};

// The model holds all experts, or shares them among the ranks of `world`: then every rank goes through the
// model equally often. No token is dropped by an expert. Ids beyond the vocabulary have no probability.
class Scorer {
 public:
  using Progress = std::function<void(int64_t done, int64_t total)>;  // tokens read, over all ranks

  // Model and world must outlive the scorer.
  Scorer(const model::Gpt& model, Communicator& world, const ScorerOptions& options);

  // One score a request, the same on every rank; collective, with the same requests on every rank. A request
  // of more than length + 1 tokens loses its beginning. A shared context is read once. Errors: as
  // plan_batches; numeric where the model's logits are not finite; data for an id beyond the vocabulary.
  std::vector<Score> score(std::span<const TokenRequest> requests, const Progress& progress = {});

  // What greedy decoding writes after each context (the end of it, where it is longer than length -
  // max_tokens), until ended(request, written) says so, or `max_tokens`. Collective, as score().
  using Ended = std::function<bool(size_t request, std::span<const int32_t> written)>;
  std::vector<std::vector<int32_t>> generate(std::span<const std::vector<int32_t>> contexts,
                                             int64_t max_tokens, const Ended& ended,
                                             const Progress& progress = {});

  // Bytes that score() or generate() takes of a device, the weights apart, and gives back at its end. Asked
  // of a model that lies on one, it takes them for a moment: Error(device) where they are not there.
  // Collective.
  int64_t device_bytes(std::span<const TokenRequest> requests) const;
  int64_t device_bytes(std::span<const std::vector<int32_t>> contexts, int64_t max_tokens) const;

  int64_t length() const { return options_.length; }

 private:
  class Reader;
  bool experts_are_shared() const;
  bool some_rank_has(bool work) const;
  void share(std::vector<std::vector<int32_t>>& texts) const;

  const model::Gpt& model_;
  Communicator& world_;
  ScorerOptions options_;
};

}  // namespace ziggurat::eval
