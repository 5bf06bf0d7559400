#include <algorithm>
#include <array>
#include <queue>
#include <vector>

#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Candidate {
  int64_t count;
  uint64_t pair;
  // std::priority_queue pops the greatest: highest count, then lowest pair.
  bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }
};

// The symbols of all pieces, each piece a linked list in which a merge is made in constant time however long
// the piece is.
struct Symbols {
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    int32_t symbol;  // -1: merged into its left neighbour
    uint32_t previous, next, piece;
  };
  std::vector<Node> nodes;
  std::vector<int64_t> counts;  // of each piece in the text

  void add_piece(std::string_view piece, int64_t count, const std::array<int32_t, 256>& id_of_byte) {
    const auto first = static_cast<uint32_t>(nodes.size()), number = static_cast<uint32_t>(counts.size());
    const auto last = first + static_cast<uint32_t>(piece.size()) - 1;
    for (uint32_t i = first; i <= last; ++i) {
      nodes.push_back({id_of_byte[static_cast<uint8_t>(piece[i - first])], i == first ? kNone : i - 1,
                       i == last ? kNone : i + 1, number});
    }
    counts.push_back(count);
  }
};

// How often each pair of neighbours occurs and where, kept up to date merge by merge. The heap is lazy: an
// entry whose count is no longer true is pushed again with the true one when it comes up. Counts of a pair
// only ever fall, except for pairs with the newest token, which are pushed when that token appears.
class PairCounts {
 public:
  explicit PairCounts(Symbols symbols)
      : nodes_(std::move(symbols.nodes)), counts_(std::move(symbols.counts)) {
    for (uint32_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].next != Symbols::kNone) add_pair_at(i);
    }
    for (const auto& [pair, entry] : pairs_) heap_.push({entry.count, pair});
  }

  // The pair to merge next; count 0 if there is none.
  Candidate best() {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      const auto it = pairs_.find(top.pair);
      const int64_t count = it == pairs_.end() ? 0 : it->second.count;
      if (count == top.count) return top;
      if (count > 0) heap_.push({count, top.pair});
    }
    return {0, 0};
  }

  void merge(uint64_t pair, int32_t merged) {
    const auto left = static_cast<int32_t>(pair >> 32), right = static_cast<int32_t>(pair & 0xffffffffu);
    std::vector<uint32_t> places = std::move(pairs_.at(pair).places);
    std::sort(places.begin(), places.end());  // from left to right: of "aaa" the first two are merged
    fresh_.clear();
    for (const uint32_t i : places) {
      const uint32_t next = nodes_[i].next;
      if (nodes_[i].symbol != left || next == Symbols::kNone || nodes_[next].symbol != right) continue;
      merge_at(i, merged);
    }
    pairs_.erase(pair);
    std::sort(fresh_.begin(), fresh_.end());
    fresh_.erase(std::unique(fresh_.begin(), fresh_.end()), fresh_.end());
    for (const uint64_t key : fresh_) {
      if (const auto it = pairs_.find(key); it != pairs_.end()) heap_.push({it->second.count, key});
    }
  }

 private:
  struct Entry {
    int64_t count = 0;
    std::vector<uint32_t> places;  // of left symbols where the pair occurs or once occurred
  };

  uint64_t pair_at(uint32_t i) const { return pair_key(nodes_[i].symbol, nodes_[nodes_[i].next].symbol); }

  uint64_t add_pair_at(uint32_t i) {
    const uint64_t pair = pair_at(i);
    Entry& entry = pairs_[pair];
    entry.count += counts_[nodes_[i].piece];
    entry.places.push_back(i);
    return pair;
  }

  void remove_pair_at(uint32_t i) { pairs_.at(pair_at(i)).count -= counts_[nodes_[i].piece]; }

  void merge_at(uint32_t i, int32_t merged) {
    Symbols::Node& node = nodes_[i];
    Symbols::Node& gone = nodes_[node.next];
    const uint32_t before = node.previous, after = gone.next;
    if (before != Symbols::kNone) remove_pair_at(before);
    if (after != Symbols::kNone) {
      remove_pair_at(node.next);
      nodes_[after].previous = i;
    }
    gone.symbol = -1;
    node.symbol = merged;
    node.next = after;
    if (before != Symbols::kNone) fresh_.push_back(add_pair_at(before));
    if (after != Symbols::kNone) fresh_.push_back(add_pair_at(i));
  }

  std::vector<Symbols::Node> nodes_;
  std::vector<int64_t> counts_;
  std::unordered_map<uint64_t, Entry> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<uint64_t> fresh_;  // pairs with the newest token
};

}  // namespace

void BpeTrainer::add_text(std::string_view document) {
  bytes_ += static_cast<int64_t>(document.size());
  const char* p = document.data();
  const char* const end = p + document.size();
  while (p < end) {
    const std::string_view piece(p, gpt2_piece_length(p, end));
    if (const auto it = counts_.find(piece); it != counts_.end()) {
      ++it->second;
    } else {
      counts_.emplace(piece, 1);
    }
    p += piece.size();
  }
}

BpeVocab BpeTrainer::train(int32_t vocab_size, const std::function<void()>& after_merge) const {
  constexpr int32_t kSmallest = 256 + 1;  // the bytes and <|endoftext|>
  check(vocab_size >= kSmallest, ErrorKind::argument,
        "[train-tokenizer] vocabulary size: expected at least {} (256 bytes and {}), got {}", kSmallest,
        kEndOfText, vocab_size);
  BpeVocab vocab;
  std::array<int32_t, 256> id_of_byte{};
  for (const uint8_t byte : gpt2_byte_order()) {
    id_of_byte[byte] = static_cast<int32_t>(vocab.tokens.size());
    vocab.tokens.emplace_back(1, static_cast<char>(byte));
  }
  int64_t bytes_of_pieces = 0;
  for (const auto& [piece, count] : counts_) bytes_of_pieces += static_cast<int64_t>(piece.size());
  check(
      bytes_of_pieces < Symbols::kNone, ErrorKind::data,
      "[train-tokenizer] the distinct pieces of the text have {} bytes, the most is {}; read less of it with "
      "--max-bytes",
      bytes_of_pieces, Symbols::kNone - 1);
  Symbols symbols;
  symbols.nodes.reserve(static_cast<size_t>(bytes_of_pieces));
  for (const auto& [piece, count] : counts_) {
    if (piece.size() > 1) symbols.add_piece(piece, count, id_of_byte);
  }
  PairCounts pairs(std::move(symbols));
  while (static_cast<int32_t>(vocab.tokens.size()) + 1 < vocab_size) {
    const Candidate next = pairs.best();
    check(next.count >= 2, ErrorKind::data,
          "[train-tokenizer] {} bytes of text give a vocabulary of at most {} tokens, {} were asked for; use "
          "more text or a smaller --vocab-size",
          bytes_, vocab.tokens.size() + 1, vocab_size);
    const auto left = static_cast<int32_t>(next.pair >> 32),
               right = static_cast<int32_t>(next.pair & 0xffffffffu);
    const auto merged = static_cast<int32_t>(vocab.tokens.size());
    vocab.tokens.push_back(vocab.tokens[static_cast<size_t>(left)] +
                           vocab.tokens[static_cast<size_t>(right)]);
    vocab.merges.push_back({left, right, merged});
    pairs.merge(next.pair, merged);
    if (after_merge) after_merge();
  }
  vocab.special_tokens.push_back(static_cast<int32_t>(vocab.tokens.size()));
  vocab.tokens.emplace_back(kEndOfText);
  return vocab;
}

}  // namespace ziggurat
