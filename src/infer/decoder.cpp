#include <algorithm>
#include <utility>

#include <ziggurat/infer/decoder.h>

namespace ziggurat::infer {

namespace {

constexpr int64_t kBlock = ExecutorOptions{}.block;

int64_t blocks_for(int64_t tokens) { return (tokens + kBlock - 1) / kBlock; }

int64_t checked_context(const model::Gpt& model, int64_t sequences, int64_t context) {
  check(sequences > 0 && 0 < context && context <= model.config().max_sequence, ErrorKind::argument,
        "[decoder] expected at least one sequence of 1 to {} tokens (max_sequence), got {} of {}",
        model.config().max_sequence, sequences, context);
  return context;
}

}  // namespace

Decoder::Decoder(const model::Gpt& model, int64_t sequences, int64_t context, int64_t pass_tokens,
                 Reproducible reproducible, bool copies, int64_t tokens)
    : context_(checked_context(model, sequences, context)),
      pass_tokens_(pass_tokens),
      pool_(tokens == 0 ? sequences * blocks_for(context) : blocks_for(tokens), kBlock),
      executor_(model, {.blocks = pool_.blocks(),
                        .reproducible = reproducible,
                        .rows = pass_tokens,
                        .table_blocks = sequences * blocks_for(context),
                        .copies = copies}),
      sequences_(static_cast<size_t>(sequences)) {
  for (Sequence& sequence : sequences_) sequence.blocks.reserve(static_cast<size_t>(blocks_for(context)));
}

int64_t Decoder::tokens_of(int64_t length, int64_t shared) {
  return (blocks_for(length) - shared / kBlock) * kBlock;
}

// Blocks for tokens up to `length`, of which those that are written are nobody else's.
void Decoder::make_room(Sequence& sequence, int64_t length) {
  const auto first = static_cast<size_t>(sequence.length / kBlock);
  if (sequence.length % kBlock != 0 && pool_.is_shared(sequence.blocks[first])) {
    const int32_t own = pool_.take();
    executor_.copy_block(sequence.blocks[first], own);
    pool_.release(sequence.blocks[first]);
    sequence.blocks[first] = own;
  }
  while (std::ssize(sequence.blocks) < blocks_for(length)) sequence.blocks.push_back(pool_.take());
}

// The pass that reads these tokens.
void Decoder::plan(std::span<const int32_t> sequences, std::span<const int32_t> tokens) {
  pass_.clear();
  for (Sequence& sequence : sequences_) sequence.table = -1, sequence.reading = 0;
  for (const int32_t number : sequences) {
    Sequence& sequence = at(number);
    ++sequence.reading;
    check(sequence.length + sequence.reading <= context_, ErrorKind::argument,
          "[decoder] sequence {} is full with {} tokens", number, context_);
  }
  for (const int32_t number : sequences) {
    Sequence& sequence = at(number);
    if (sequence.table >= 0) continue;
    make_room(sequence, sequence.length + sequence.reading);
    sequence.table = static_cast<int32_t>(pass_.dropped.size());
    pass_.add_sequence(sequence.blocks, 0);
  }
  for (Sequence& sequence : sequences_) sequence.reading = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Sequence& sequence = at(sequences[i]);
    pass_.add_row(tokens[i], sequence.length + sequence.reading++, false);
    pass_.sequence.back() = sequence.table;
  }
}

void Decoder::read(std::span<const int32_t> sequences, std::span<const int32_t> tokens,
                   std::span<const int32_t> rows, const LogitsVisitor& visit) {
  check(sequences.size() == tokens.size(), ErrorKind::argument,
        "[decoder] expected a sequence for each of {} tokens, got {}", tokens.size(), sequences.size());
  size_t next = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(pass_tokens_)) {
    const size_t count = std::min(static_cast<size_t>(pass_tokens_), tokens.size() - begin);
    plan(sequences.subspan(begin, count), tokens.subspan(begin, count));
    for (size_t i = next; i < rows.size() && static_cast<size_t>(rows[i]) < begin + count; ++i) {
      pass_.wanted.push_back(rows[i] - static_cast<int32_t>(begin));
    }
    executor_.run(pass_, [&](size_t first, const Tensor& logits) { visit(next + first, logits); });
    for (Sequence& sequence : sequences_) {
      sequence.length += std::exchange(sequence.reading, 0);
    }
    next += pass_.wanted.size();
  }
}

void Decoder::idle(int64_t passes) {
  pass_.clear();
  for (int64_t i = 0; i < passes; ++i) executor_.run(pass_, {});
}

void Decoder::copy(int64_t from, int64_t to) {
  if (from == to) return;
  truncate(to, 0);
  const Sequence& source = at(from);
  Sequence& target = at(to);
  for (int64_t i = 0; i < blocks_for(source.length); ++i) {
    const int32_t block = source.blocks[static_cast<size_t>(i)];
    pool_.hold(block);
    target.blocks.push_back(block);
  }
  target.length = source.length;
}

void Decoder::truncate(int64_t sequence, int64_t length) {
  Sequence& s = at(sequence);
  check(0 <= length && length <= s.length, ErrorKind::argument,
        "[decoder] sequence {} has {} tokens, cannot keep {}", sequence, s.length, length);
  while (std::ssize(s.blocks) > blocks_for(length)) {
    pool_.release(s.blocks.back());
    s.blocks.pop_back();
  }
  s.length = length;
}

}  // namespace ziggurat::infer
