#include <algorithm>
#include <optional>

#include <ziggurat/infer/decoder.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {

Decoder::Decoder(const model::Gpt& model, int64_t sequences, int64_t context, int64_t prefill_tokens)
    : model_(model),
      context_(context),
      prefill_tokens_(prefill_tokens),
      cache_(model.make_cache(sequences, context)),
      activations_("activations", Arena::all_memory()),
      gradients_("gradients", 1),
      workspace_("workspace", Arena::all_memory()),
      tape_(activations_, gradients_, workspace_, stream_),
      lengths_(static_cast<size_t>(sequences), 0) {
  const auto rows = static_cast<size_t>(std::max(sequences, std::min(context, prefill_tokens_)));
  positions_.resize(rows);
  sequence_.resize(rows);
}

Tensor Decoder::prefill(int64_t sequence, std::span<const int32_t> tokens) {
  const auto n = static_cast<int64_t>(tokens.size());
  check(0 < n && n <= context_, ErrorKind::argument,
        "[decoder] expected a prompt of 1 to {} tokens (the context), got {}", context_, n);
  truncate(sequence, 0);
  Tensor logits;
  for (int64_t begin = 0; begin < n; begin += prefill_tokens_) {
    const int64_t count = std::min(prefill_tokens_, n - begin);
    std::fill_n(sequence_.begin(), count, static_cast<int32_t>(sequence));
    logits = run(1, count, tokens.data() + begin, sequence_.data());
  }
  return logits;
}

Tensor Decoder::step(std::span<const int32_t> sequences, std::span<const int32_t> tokens) {
  check(!tokens.empty() && tokens.size() == sequences.size() && tokens.size() <= lengths_.size(),
        ErrorKind::argument, "[decoder] expected a token for each of 1 to {} sequences, got {} for {}",
        lengths_.size(), tokens.size(), sequences.size());
  for (const int32_t sequence : sequences) {
    check(length(sequence) < context_, ErrorKind::argument,
          "[decoder] sequence {} is full with {} tokens: prefill it with the end of its text", sequence,
          context_);
  }
  return run(static_cast<int64_t>(tokens.size()), 1, tokens.data(), sequences.data());
}

// One forward over sequences x length new tokens; of_sequence names each token's sequence.
Tensor Decoder::run(int64_t sequences, int64_t length, const int32_t* tokens, const int32_t* of_sequence) {
  for (int64_t row = 0; row < sequences * length; ++row) {
    int64_t& past = lengths_[static_cast<size_t>(of_sequence[row])];
    positions_[static_cast<size_t>(row)] = static_cast<int32_t>(past++);
  }
  tape_.begin({.training = false, .dropless = true});
  // Few rows are products of our own, which wait for nobody; many are the matrix library's.
  std::optional<InPieces> pieces;
  if (sequences * length <= kernels::kFewRows) pieces.emplace();
  return model_
      .next_token_logits(tape_, {.tokens = tokens,
                                 .sequences = sequences,
                                 .length = length,
                                 .positions = positions_.data(),
                                 .cache = &cache_,
                                 .cached_sequence = of_sequence})
      .value();
}

void Decoder::copy(int64_t from, int64_t to) {
  cache_.copy(from, to, length(from));
  lengths_.at(static_cast<size_t>(to)) = length(from);
}

void Decoder::truncate(int64_t sequence, int64_t length) {
  int64_t& now = lengths_.at(static_cast<size_t>(sequence));
  check(0 <= length && length <= now, ErrorKind::argument,
        "[decoder] sequence {} has {} tokens, cannot keep {}", sequence, now, length);
  now = length;
}

}  // namespace ziggurat::infer
