#include <algorithm>
#include <queue>

#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Candidate {
  int64_t count;
  uint64_t pair;
  // std::priority_queue pops the greatest: highest count, then lowest pair.
  bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }
};

// Pair counts over all words, kept up to date merge by merge. The heap is lazy: an entry whose count is no
// longer true is pushed again with the true one when it comes up. Counts of a pair only ever fall, except
// for pairs with the newest token, which are pushed when that token appears.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const auto& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        add(pair_key(symbols[i], symbols[i + 1]), words_[w].count, w);
      }
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
    std::vector<size_t> affected = std::move(pairs_.at(pair).words);
    std::sort(affected.begin(), affected.end());
    affected.erase(std::unique(affected.begin(), affected.end()), affected.end());
    fresh_.clear();
    for (const size_t w : affected) merge_in_word(w, left, right, merged);
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
    std::vector<size_t> words;  // where the pair occurs or once occurred
  };

  void add(uint64_t pair, int64_t count, size_t word) {
    Entry& entry = pairs_[pair];
    entry.count += count;
    if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
  }

  void subtract(uint64_t pair, int64_t count) {
    if (const auto it = pairs_.find(pair); it != pairs_.end()) it->second.count -= count;
  }

  void merge_in_word(size_t w, int32_t left, int32_t right, int32_t merged) {
    std::vector<int32_t>& symbols = words_[w].symbols;
    const int64_t count = words_[w].count;
    std::vector<int32_t> result;
    result.reserve(symbols.size());
    for (size_t i = 0; i < symbols.size(); ++i) {
      if (i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right) {
        result.push_back(merged);
        ++i;
      } else {
        result.push_back(symbols[i]);
      }
    }
    if (result.size() == symbols.size()) return;  // merged away by an earlier merge
    for (size_t i = 0; i + 1 < symbols.size(); ++i) subtract(pair_key(symbols[i], symbols[i + 1]), count);
    for (size_t i = 0; i + 1 < result.size(); ++i) {
      const uint64_t pair = pair_key(result[i], result[i + 1]);
      add(pair, count, w);
      if (result[i] == merged || result[i + 1] == merged) fresh_.push_back(pair);
    }
    symbols = std::move(result);
  }

  std::vector<Word> words_;
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

BpeVocab BpeTrainer::train(int32_t vocab_size) const {
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
  std::vector<Word> words;
  words.reserve(counts_.size());
  for (const auto& [piece, count] : counts_) {
    Word word{{}, count};
    for (const char byte : piece) word.symbols.push_back(id_of_byte[static_cast<uint8_t>(byte)]);
    if (word.symbols.size() > 1) words.push_back(std::move(word));
  }
  PairCounts pairs(std::move(words));
  while (static_cast<int32_t>(vocab.tokens.size()) + 1 < vocab_size) {
    const Candidate next = pairs.best();
    check(next.count >= 2, ErrorKind::data,
          "[train-tokenizer] {} bytes of text give a vocabulary of at most {} tokens, {} were asked for; use "
          "more "
          "text or a smaller --vocab-size",
          bytes_, vocab.tokens.size() + 1, vocab_size);
    const auto left = static_cast<int32_t>(next.pair >> 32),
               right = static_cast<int32_t>(next.pair & 0xffffffffu);
    const auto merged = static_cast<int32_t>(vocab.tokens.size());
    vocab.tokens.push_back(vocab.tokens[static_cast<size_t>(left)] +
                           vocab.tokens[static_cast<size_t>(right)]);
    vocab.merges.push_back({left, right, merged});
    pairs.merge(next.pair, merged);
  }
  vocab.special_tokens.push_back(static_cast<int32_t>(vocab.tokens.size()));
  vocab.tokens.emplace_back(kEndOfText);
  return vocab;
}

}  // namespace ziggurat
