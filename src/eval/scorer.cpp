#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/batch_plan.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/eval/scorer.h>
#include <ziggurat/infer/next_token.h>

namespace ziggurat::eval {

namespace {

// Of a decoder: that reads every one of some batches.
struct Room {
  int64_t sequences = 1, context = 1;
  int64_t tokens = 1;  // as of infer::Decoder
};

Room room_for(const std::vector<Batch>& batches) {
  Room room;
  for (const Batch& batch : batches) {
    int64_t sequences = 0, tokens = 0;
    for (const Group& group : batch) {
      const int64_t shared = std::ssize(group.shared.tokens);
      sequences += group.sequences();
      tokens += infer::Decoder::tokens_of(shared);
      room.context = std::max(room.context, shared);
      for (const Path& branch : group.branches) {
        const int64_t length = shared + std::ssize(branch.tokens);
        tokens += infer::Decoder::tokens_of(length, shared);
        room.context = std::max(room.context, length);
      }
    }
    room.sequences = std::max(room.sequences, sequences);
    room.tokens = std::max(room.tokens, tokens);
  }
  return room;
}

enum class Phase { contexts, branches };

int64_t tokens_of(const Batch& batch, Phase phase) {
  int64_t tokens = 0;
  for (const Group& group : batch) {
    tokens += phase == Phase::contexts ? std::ssize(group.shared.tokens) : group.branch_tokens();
  }
  return tokens;
}

// Rows for one read, with what is wanted of each.
struct Rows {
  std::vector<int32_t> sequences, tokens;
  std::vector<int32_t> wanted;                   // rows with targets
  std::vector<std::span<const Target>> targets;  // of each wanted row

  void append(const Path& path, int32_t sequence) {
    const auto first = static_cast<int32_t>(tokens.size());
    tokens.insert(tokens.end(), path.tokens.begin(), path.tokens.end());
    sequences.resize(tokens.size(), sequence);
    for (size_t i = 0, end = 0; i < path.targets.size(); i = end) {
      for (end = i; end < path.targets.size() && path.targets[end].row == path.targets[i].row;) ++end;
      wanted.push_back(first + static_cast<int32_t>(path.targets[i].row));
      targets.push_back(std::span(path.targets).subspan(i, end - i));
    }
  }
};

void check_ids(std::span<const int32_t> tokens, int64_t vocabulary) {
  for (const int32_t token : tokens) {
    check(0 <= token && token < vocabulary, ErrorKind::data,
          "a request holds the token id {}, but the model's vocabulary has {}: it was made with another "
          "tokenizer",
          token, vocabulary);
  }
}

struct Sums {
  std::vector<double> log_likelihood, misses;  // by request
  explicit Sums(size_t requests) : log_likelihood(requests, 0.0), misses(requests, 0.0) {}
};

}  // namespace

// The decoder of one call, in step with the other ranks where experts are shared.
class Scorer::Reader {
 public:
  Reader(const Scorer& scorer, const Room& room)
      : lockstep_(scorer.experts_are_shared()),
        decoder_(scorer.model_, room.sequences, room.context, scorer.options_.batch_tokens,
                 scorer.options_.reproducible, scorer.options_.copies, room.tokens) {}

  // Nothing has been read.
  void forget() {
    for (int64_t i = 0; i < decoder_.sequences(); ++i) decoder_.truncate(i, 0);
  }

  int64_t passes(int64_t tokens) const { return decoder_.forwards(tokens); }
  infer::Decoder& decoder() { return decoder_; }

  // Reads rows (maybe none) in as many passes as the ranks agreed on.
  void read(const Rows& rows, int64_t agreed_passes, const infer::Decoder::LogitsVisitor& visit) {
    decoder_.read(rows.sequences, rows.tokens, rows.wanted, visit);
    if (lockstep_) decoder_.idle(agreed_passes - passes(std::ssize(rows.tokens)));
  }

 private:
  bool lockstep_;  // peers need the experts of this rank
  infer::Decoder decoder_;
};

Scorer::Scorer(const model::Gpt& model, Communicator& world, const ScorerOptions& options)
    : model_(model), world_(world), options_(options) {
  check(0 < options.length && options.length <= model.config().max_sequence, ErrorKind::argument,
        "[scorer] expected a length of 1 to {} (max_sequence), got {}", model.config().max_sequence,
        options.length);
  check(options.batch_tokens > 0 && options.sequences > 0, ErrorKind::argument,
        "[scorer] expected batches of at least one token and sequence, got {} and {}", options.batch_tokens,
        options.sequences);
}

bool Scorer::experts_are_shared() const { return model_.in_step(); }

std::vector<Score> Scorer::score(std::span<const TokenRequest> requests, const Progress& progress) {
  for (const TokenRequest& request : requests) {
    check_ids(request.context, model_.config().vocab_size);
    check_ids(request.continuation, model_.config().vocab_size);
  }
  const std::vector<Batch> batches =
      plan_batches(requests, {options_.length, options_.batch_tokens, options_.sequences});
  if (batches.empty()) return {};
  const auto ranks = static_cast<size_t>(world_.size()), rank = static_cast<size_t>(world_.rank());
  const int64_t vocabulary = model_.config().vocab_size;
  Reader reader(*this, room_for(batches));
  Sums sums(requests.size());

  const auto read = [&](const Rows& rows, int64_t passes) {
    reader.read(rows, passes, [&](size_t first, const Tensor& logits) {
      const std::vector<infer::NextToken> predictions = infer::next_tokens(logits, vocabulary);
      for (size_t i = 0; i < predictions.size(); ++i) {
        for (const Target& target : rows.targets[first + i]) {
          sums.log_likelihood[target.request] += predictions[i].log_probability(logits, i, target.token);
          sums.misses[target.request] += predictions[i].likeliest != target.token;
        }
      }
    });
  };

  int64_t total = 0, done = 0;
  for (const Batch& batch : batches) {
    total += tokens_of(batch, Phase::contexts) + tokens_of(batch, Phase::branches);
  }
  for (size_t round = 0; round < batches.size(); round += ranks) {
    flight_log().note_progress();
    const Batch none, &batch = round + rank < batches.size() ? batches[round + rank] : none;
    int64_t context_passes = 0, branch_passes = 0;
    for (size_t b = round; b < std::min(round + ranks, batches.size()); ++b) {
      const int64_t contexts = tokens_of(batches[b], Phase::contexts),
                    branches = tokens_of(batches[b], Phase::branches);
      context_passes = std::max(context_passes, reader.passes(contexts));
      branch_passes = std::max(branch_passes, reader.passes(branches));
      done += contexts + branches;
    }

    reader.forget();
    Rows contexts, branches;
    int32_t sequence = 0;
    for (const Group& group : batch) {
      contexts.append(group.shared, sequence);
      sequence += static_cast<int32_t>(group.sequences());
    }
    read(contexts, context_passes);

    sequence = 0;
    for (const Group& group : batch) {
      const int32_t first = sequence;
      for (const Path& branch : group.branches) {
        if (sequence != first) reader.decoder().copy(first, sequence);
        branches.append(branch, sequence++);
      }
      if (group.branches.empty()) ++sequence;
    }
    read(branches, branch_passes);
    world_.barrier();  // who is lost is found in this round, and no wait is longer than one
    if (progress) progress(done, total);
  }

  // A request's sums come from one rank, so that nothing is rounded here.
  Stream stream;
  for (std::vector<double>* values : {&sums.log_likelihood, &sums.misses}) {
    world_
        .all_reduce(Tensor(values->data(), DType::f64, {std::ssize(*values)}), ReduceOp::sum,
                    ReduceOrder::any, stream)
        .wait();
  }
  std::vector<Score> scores(requests.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = {sums.log_likelihood[i], sums.misses[i] == 0};
  return scores;
}

namespace {

constexpr size_t kTogether = 32;  // texts that are written side by side

// What a model that sees `length` tokens reads of contexts that it goes on from.
struct Contexts {
  std::span<const std::vector<int32_t>> all;
  int64_t length, max_tokens;
  std::vector<size_t> order = {};  // the longest first

  Contexts(std::span<const std::vector<int32_t>> contexts, int64_t sees, int64_t writes)
      : all(contexts), length(sees), max_tokens(writes), order(contexts.size()) {
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return seen(a).size() > seen(b).size(); });
  }

  // The end, which leaves room for what is written.
  std::span<const int32_t> seen(size_t i) const {
    return std::span(all[i]).last(std::min(all[i].size(), static_cast<size_t>(length - max_tokens)));
  }

  Room room() const {
    Room room{.sequences = static_cast<int64_t>(kTogether), .context = length};
    for (size_t i = 0; i < std::min(kTogether, order.size()); ++i) {
      room.tokens += infer::Decoder::tokens_of(std::ssize(seen(order[i])) + max_tokens);
    }
    return room;
  }
};

}  // namespace

int64_t Scorer::device_bytes(std::span<const TokenRequest> requests) const {
  const std::vector<Batch> batches =
      plan_batches(requests, {options_.length, options_.batch_tokens, options_.sequences});
  return batches.empty() ? 0 : Reader(*this, room_for(batches)).decoder().executor().device_bytes();
}

int64_t Scorer::device_bytes(std::span<const std::vector<int32_t>> contexts, int64_t max_tokens) const {
  const Room room = Contexts(contexts, options_.length, max_tokens).room();
  return Reader(*this, room).decoder().executor().device_bytes();
}

std::vector<std::vector<int32_t>> Scorer::generate(std::span<const std::vector<int32_t>> contexts,
                                                   int64_t max_tokens, const Ended& ended,
                                                   const Progress& progress) {
  check(0 < max_tokens && max_tokens < options_.length, ErrorKind::argument,
        "[scorer] expected to write 1 to {} tokens (the model sees {}), got {}", options_.length - 1,
        options_.length, max_tokens);
  for (const std::vector<int32_t>& context : contexts) {
    check(!context.empty(), ErrorKind::argument, "[scorer] a context is empty: expected at least one token");
    check_ids(context, model_.config().vocab_size);
  }
  const Contexts given(contexts, options_.length, max_tokens);
  const std::vector<size_t>& order = given.order;

  const auto ranks = static_cast<size_t>(world_.size()), rank = static_cast<size_t>(world_.rank());
  std::vector<std::vector<int32_t>> written(contexts.size());
  Reader reader(*this, given.room());
  for (size_t round = 0; round < order.size(); round += ranks * kTogether) {
    const auto batch_of = [&](size_t r) {
      const size_t begin = std::min(round + r * kTogether, order.size());
      return std::span(order).subspan(begin, std::min(kTogether, order.size() - begin));
    };
    int64_t passes = 0;
    for (size_t r = 0; r < ranks; ++r) {
      int64_t tokens = 0;
      for (const size_t i : batch_of(r)) tokens += std::ssize(given.seen(i));
      passes = std::max(passes, reader.passes(tokens));
    }

    const std::span<const size_t> mine = batch_of(rank);
    reader.forget();
    std::vector<int32_t> growing;  // places in `mine`, which are the decoder's sequences too
    Rows rows;
    for (size_t s = 0; s < mine.size(); ++s) {
      const std::span<const int32_t> context = given.seen(mine[s]);
      rows.tokens.insert(rows.tokens.end(), context.begin(), context.end());
      rows.sequences.resize(rows.tokens.size(), static_cast<int32_t>(s));
      rows.wanted.push_back(static_cast<int32_t>(rows.tokens.size()) - 1);
      growing.push_back(static_cast<int32_t>(s));
    }
    while (some_rank_has(!rows.tokens.empty())) {
      std::vector<int32_t> next;
      reader.read(rows, passes, [&](size_t first, const Tensor& logits) {
        const std::vector<infer::NextToken> predictions =
            infer::next_tokens(logits, model_.config().vocab_size);
        for (size_t i = 0; i < predictions.size(); ++i) {
          const int32_t sequence = growing[first + i];
          std::vector<int32_t>& text = written[mine[static_cast<size_t>(sequence)]];
          text.push_back(predictions[i].likeliest);
          const bool full = std::ssize(text) == max_tokens;
          if (!full && !ended(mine[static_cast<size_t>(sequence)], text)) next.push_back(sequence);
        }
      });
      growing = std::move(next);
      rows = {};
      for (const int32_t sequence : growing) {
        rows.wanted.push_back(static_cast<int32_t>(rows.tokens.size()));
        rows.tokens.push_back(written[mine[static_cast<size_t>(sequence)]].back());
        rows.sequences.push_back(sequence);
      }
      passes = reader.passes(kTogether);
    }
    if (progress)
      progress(static_cast<int64_t>(std::min(round + ranks * kTogether, order.size())), std::ssize(order));
  }
  share(written);
  return written;
}

// A rank goes on while any other does: where experts are shared it has to, elsewhere its wait is one of
// short ones, in which a lost rank is found.
bool Scorer::some_rank_has(bool work) const {
  if (world_.size() == 1) return work;
  int32_t any = work;
  Stream stream;
  world_.all_reduce(Tensor(&any, DType::i32, {1}), ReduceOp::max, ReduceOrder::any, stream).wait();
  return any != 0;
}

// Every rank has written some of the texts and left the others empty.
void Scorer::share(std::vector<std::vector<int32_t>>& texts) const {
  if (world_.size() == 1) return;
  std::vector<int32_t> lengths(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) lengths[i] = static_cast<int32_t>(texts[i].size());
  Stream stream;
  const auto sum = [&](std::vector<int32_t>& values) {
    world_
        .all_reduce(Tensor(values.data(), DType::i32, {std::ssize(values)}), ReduceOp::sum, ReduceOrder::any,
                    stream)
        .wait();
  };
  sum(lengths);
  std::vector<int32_t> all;
  for (size_t i = 0; i < texts.size(); ++i) {
    texts[i].resize(static_cast<size_t>(lengths[i]), 0);
    all.insert(all.end(), texts[i].begin(), texts[i].end());
  }
  sum(all);
  size_t next = 0;
  for (std::vector<int32_t>& text : texts) {
    for (int32_t& token : text) token = all[next++];
  }
}

}  // namespace ziggurat::eval
