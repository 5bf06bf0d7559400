#include <algorithm>
#include <optional>

#include <ziggurat/infer/decoder.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {

namespace {

constexpr int64_t kLogitsRows = 256;  // of read() at once: they take 4 bytes x vocabulary each

}  // namespace

Decoder::Decoder(const model::Gpt& model, int64_t sequences, int64_t context, int64_t prefill_tokens,
                 Reproducible reproducible)
    : model_(model),
      context_(context),
      prefill_tokens_(prefill_tokens),
      cache_(model.make_cache(sequences, context)),
      activations_("activations", Arena::all_memory()),
      gradients_("gradients", 1),
      workspace_("workspace", Arena::all_memory()),
      stream_(Device::cpu, reproducible),
      tape_(activations_, gradients_, workspace_, stream_),
      lengths_(static_cast<size_t>(sequences), 0) {
  const auto rows = static_cast<size_t>(std::max(sequences, prefill_tokens_));
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
    const auto last = static_cast<int32_t>(count - 1);
    const std::span wanted(&last, begin + count == n ? 1 : 0);
    logits = run(1, count, tokens.data() + begin, sequence_.data(), wanted);
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
  return run(static_cast<int64_t>(tokens.size()), 1, tokens.data(), sequences.data(), {});
}

// One forward over sequences x length new tokens; of_sequence names each token's sequence.
Tensor Decoder::run(int64_t sequences, int64_t length, const int32_t* tokens, const int32_t* of_sequence,
                    const Wanted& wanted) {
  for (int64_t row = 0; row < sequences * length; ++row) {
    int64_t& past = lengths_[static_cast<size_t>(of_sequence[row])];
    positions_[static_cast<size_t>(row)] = static_cast<int32_t>(past++);
  }
  tape_.begin({.training = false, .dropless = true});
  // Few rows are products of our own, which wait for nobody; many are the matrix library's.
  std::optional<InPieces> pieces;
  if (sequences * length <= kernels::kFewRows) pieces.emplace();
  const Var hidden = model_.forward(tape_, {.tokens = tokens,
                                            .sequences = sequences,
                                            .length = length,
                                            .positions = positions_.data(),
                                            .cache = &cache_,
                                            .cached_sequence = of_sequence,
                                            .wanted = wanted});
  return model_.logits(tape_, hidden, 0, hidden.dim(0)).value();
}

void Decoder::read(std::span<const int32_t> sequences, std::span<const int32_t> tokens,
                   std::span<const int32_t> rows, const LogitsVisitor& visit) {
  check(sequences.size() == tokens.size(), ErrorKind::argument,
        "[decoder] expected a sequence for each of {} tokens, got {}", tokens.size(), sequences.size());
  size_t next = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(prefill_tokens_)) {
    const size_t count = std::min(static_cast<size_t>(prefill_tokens_), tokens.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      int64_t& past = lengths_.at(static_cast<size_t>(sequences[begin + i]));
      check(past < context_, ErrorKind::argument, "[decoder] sequence {} is full with {} tokens",
            sequences[begin + i], context_);
      positions_[i] = static_cast<int32_t>(past++);
    }
    std::vector<int32_t> wanted;
    for (size_t i = next; i < rows.size() && static_cast<size_t>(rows[i]) < begin + count; ++i) {
      wanted.push_back(rows[i] - static_cast<int32_t>(begin));
    }
    tape_.begin({.training = false, .dropless = true});
    const Var hidden = model_.forward(tape_, {.tokens = tokens.data() + begin,
                                              .sequences = static_cast<int64_t>(count),
                                              .length = 1,
                                              .positions = positions_.data(),
                                              .cache = &cache_,
                                              .cached_sequence = sequences.data() + begin,
                                              .wanted = wanted});
    for (int64_t row = 0; row < hidden.dim(0); row += kLogitsRows) {
      const ArenaScope scope(activations_);
      const int64_t n = std::min(kLogitsRows, hidden.dim(0) - row);
      visit(next + static_cast<size_t>(row), model_.logits(tape_, hidden, row, n).value());
    }
    next += wanted.size();
  }
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
