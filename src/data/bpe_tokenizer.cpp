#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include <fmt/ranges.h>

#include "data/ascii_words.h"
#include "data/piece_cache.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_tokenizer.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/gpt2_split.h>
#include <ziggurat/data/sha256.h>
#include <ziggurat/io/files.h>

namespace ziggurat {

// What pieces of up to 15 bytes are encoded to.
struct KnownPieces {
  using Words = PieceCache<3, 17>;  // 8 MiB: a vocabulary and most other words of a language
  using Rare = PieceCache<11, 13>;  // 1 MiB: names, numbers, other scripts
  Words words;
  Rare rare;

  void insert(const PieceKey& key, uint64_t hash, std::span<const int32_t> ids) {
    if (ids.size() <= Words::kMaxIds) {
      words.insert(key, hash, ids.data(), ids.size());
    } else if (ids.size() <= Rare::kMaxIds) {
      rare.insert(key, hash, ids.data(), ids.size());
    }
  }
};

namespace {

constexpr size_t kShortPiece = 48;  // bytes up to which scanning all pairs is faster than a heap

class BpeEncoder final : public Encoder {
 public:
  BpeEncoder(const BpeTokenizer& tokenizer, const KnownPieces& known)
      : tokenizer_(tokenizer), known_(known) {}

  void encode(std::string_view text, std::vector<int32_t>& ids) override {
    const char* p = text.data();
    const char* const end = p + text.size();
    used_ = waiting_ = 0;
    while (end - p >= 16) {
      const __m128i bytes = load16(p);
      if (const unsigned length = ascii_word_length(bytes)) {
        add_short(piece_key(bytes, length), ids);
        p += length;
      } else {
        p += add_piece({p, gpt2_piece_length(p, end)}, ids);
      }
    }
    while (p < end) p += add_piece({p, gpt2_piece_length(p, end)}, ids);
    look_up_waiting(ids);
    flush(ids);
  }

 private:
  size_t add_piece(std::string_view piece, std::vector<int32_t>& ids) {
    if (piece.size() <= PieceKey::kMaxBytes) {
      add_short(piece_key(piece), ids);
    } else {
      look_up_waiting(ids);
      flush(ids);
      tokenizer_.encode_piece(piece, ids);
    }
    return piece.size();
  }

  // Short pieces wait for some others before they are looked up: meanwhile the table's line comes from
  // memory.
  void add_short(const PieceKey& key, std::vector<int32_t>& ids) {
    const uint64_t hash = key.hash();
    known_.words.prefetch(hash);
    waiting_pieces_[waiting_++] = {key, hash};
    if (waiting_ == kWaiting) look_up_waiting(ids);
  }

  void look_up_waiting(std::vector<int32_t>& ids) {
    if (used_ + waiting_ * kMostIds > kBlock) flush(ids);
    for (size_t i = 0; i < waiting_; ++i) {
      const auto& [key, hash] = waiting_pieces_[i];
      if (const auto* hit = known_.words.find(key, hash)) [[likely]] {
        std::memcpy(&block_[used_], hit->ids, sizeof(hit->ids));  // all of them: a copy of fixed size
        used_ += hit->count;
      } else {
        look_up_rare(key, hash, ids);
      }
    }
    waiting_ = 0;
  }

  void look_up_rare(const PieceKey& key, uint64_t hash, std::vector<int32_t>& ids) {
    if (const auto* hit = known_.rare.find(key, hash)) {
      std::memcpy(&block_[used_], hit->ids, sizeof(hit->ids));
      used_ += hit->count;
      return;
    }
    flush(ids);
    const size_t before = ids.size();
    char bytes[PieceKey::kMaxBytes + 1];
    tokenizer_.encode_piece(key.piece(bytes), ids);
    known_.insert(key, hash, std::span(ids).subspan(before));
  }

  void flush(std::vector<int32_t>& ids) {
    ids.insert(ids.end(), block_.data(), block_.data() + used_);
    used_ = 0;
  }

  static constexpr size_t kBlock = 4096, kWaiting = 32, kMostIds = KnownPieces::Rare::kMaxIds;

  const BpeTokenizer& tokenizer_;
  KnownPieces known_;
  std::array<int32_t, kBlock>
      block_;  // ids on their way to the caller's vector: appending one by one is slow
  size_t used_ = 0;
  struct Waiting {
    PieceKey key;
    uint64_t hash;
  };
  std::array<Waiting, kWaiting> waiting_pieces_;
  size_t waiting_ = 0;
};

size_t pair_of_bytes(std::string_view piece, size_t i) {
  return static_cast<size_t>(static_cast<uint8_t>(piece[i])) << 8 | static_cast<uint8_t>(piece[i + 1]);
}

std::string fingerprint_of(const BpeVocab& vocab) {
  Sha256 hash;
  hash.update("byte-level-bpe/gpt2-split");
  hash.update_u64(vocab.tokens.size());
  for (const std::string& token : vocab.tokens) {
    hash.update_u64(token.size());
    hash.update(token);
  }
  for (const auto& merge : vocab.merges) {
    hash.update_u64(static_cast<uint64_t>(merge.left));
    hash.update_u64(static_cast<uint64_t>(merge.right));
    hash.update_u64(static_cast<uint64_t>(merge.merged));
  }
  return hash.hex();
}

int32_t find_eod(const BpeVocab& vocab) {
  for (const std::string_view name :
       {kEndOfText, std::string_view("<|end_of_text|>"), std::string_view("</s>")}) {
    const auto it = std::find(vocab.tokens.begin(), vocab.tokens.end(), name);
    if (it != vocab.tokens.end()) return static_cast<int32_t>(it - vocab.tokens.begin());
  }
  return -1;
}

}  // namespace

MergeTable::MergeTable(const std::vector<BpeVocab::Merge>& merges) {
  entries_.resize(std::bit_ceil(std::max<size_t>(16, merges.size() * 2)));
  mask_ = entries_.size() - 1;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = key(merges[rank].left, merges[rank].right);
    size_t slot = hash(pair);
    while (entries_[slot].pair != kEmpty && entries_[slot].pair != pair) slot = (slot + 1) & mask_;
    if (entries_[slot].pair == pair) continue;  // a pair listed twice keeps its first rank
    entries_[slot] = {pair, static_cast<int32_t>(rank), merges[rank].merged};
  }
}

BpeTokenizer::BpeTokenizer(BpeVocab vocab)
    : vocab_(std::move(vocab)), merges_(vocab_.merges), byte_pairs_(256 * 256), eod_id_(find_eod(vocab_)) {
  byte_ids_.fill(-1);
  for (size_t id = 0; id < vocab_.tokens.size(); ++id) {
    const std::string& token = vocab_.tokens[id];
    if (token.size() == 1) byte_ids_[static_cast<uint8_t>(token[0])] = static_cast<int32_t>(id);
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    check(
        byte_ids_[byte] >= 0, ErrorKind::data,
        "[tokenizer] the vocabulary has no token for byte 0x{:02x}; a byte-level BPE needs all 256 (is this "
        "another kind of tokenizer?)",
        byte);
  }
  for (size_t left = 0; left < 256; ++left) {
    for (size_t right = 0; right < 256; ++right) {
      byte_pairs_[left << 8 | right] = merges_.find(byte_ids_[left], byte_ids_[right]);
    }
  }
  fingerprint_ = fingerprint_of(vocab_);
  known_pieces_ = pieces_of_vocabulary();
}

// Encoders start with the vocabulary's own tokens known, so that they only ever merge what is no token.
// Later ids are rarer: they go first and are the ones to be displaced.
std::shared_ptr<const KnownPieces> BpeTokenizer::pieces_of_vocabulary() const {
  auto known = std::make_shared<KnownPieces>();
  std::vector<int32_t> ids;
  for (size_t id = vocab_.tokens.size(); id-- > 0;) {
    const std::string& token = vocab_.tokens[id];
    if (token.empty() || token.size() > PieceKey::kMaxBytes) continue;
    ids.clear();
    encode_piece(token, ids);
    const PieceKey key = piece_key(token);
    known->insert(key, key.hash(), ids);
  }
  return known;
}

std::unique_ptr<Encoder> BpeTokenizer::new_encoder() const {
  return std::make_unique<BpeEncoder>(*this, *known_pieces_);
}

size_t BpeTokenizer::safe_cut(std::string_view text) const { return gpt2_safe_cut(text); }

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    check(
        id >= 0 && id < vocab_size(), ErrorKind::data,
        "[tokenizer] token id {} is outside the vocabulary of {} tokens; was the text tokenized with another "
        "tokenizer?",
        id, vocab_size());
    text += vocab_.tokens[static_cast<size_t>(id)];
  }
  return text;
}

bool BpeTokenizer::is_text(int32_t id) const {
  if (id < 0 || id >= vocab_size() || vocab_.tokens[static_cast<size_t>(id)].empty()) return false;
  return std::find(vocab_.special_tokens.begin(), vocab_.special_tokens.end(), id) ==
         vocab_.special_tokens.end();
}

std::string BpeTokenizer::remark() const {
  if (vocab_.not_added.empty()) return {};
  return fmt::format(
      "the post_processor of this tokenizer.json puts {} around every text in Hugging Face; Ziggurat does "
      "not, "
      "neither in shards nor in prompts: a document is its text and the end-of-document token",
      fmt::join(vocab_.not_added, ", "));
}

void BpeTokenizer::save(const std::filesystem::path& directory) const {
  make_folder(directory);
  replace_file(directory / "tokenizer.json", to_tokenizer_json(vocab_));
}

void BpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.size() <= kShortPiece) {
    merge_short(piece, ids);
  } else {
    merge_long(piece, ids);
  }
}

void BpeTokenizer::merge_short(std::string_view piece, std::vector<int32_t>& ids) const {
  std::array<int32_t, kShortPiece> symbols;
  std::array<MergeTable::Entry, kShortPiece> next;  // next[i]: what symbols i and i + 1 merge to
  size_t n = piece.size();
  for (size_t i = 0; i < n; ++i) symbols[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i + 1 < n; ++i) next[i] = byte_pairs_[pair_of_bytes(piece, i)];
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (next[i].rank < next[best].rank) best = i;
    }
    if (next[best].rank == MergeTable::kNoMerge) break;
    symbols[best] = next[best].merged;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      symbols[i] = symbols[i + 1];
      next[i] = next[i + 1];
    }
    --n;
    if (best > 0) next[best - 1] = merges_.find(symbols[best - 1], symbols[best]);
    if (best + 1 < n) next[best] = merges_.find(symbols[best], symbols[best + 1]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(n));
}

void BpeTokenizer::merge_long(std::string_view piece, std::vector<int32_t>& ids) const {
  // Symbols form a linked list; a heap holds the mergeable pairs by (rank, position). A pair in the heap is
  // stale if its symbols have changed since: then the rank found again differs, or its left symbol is gone.
  struct Node {
    int32_t symbol;  // -1: merged into its left neighbour
    int32_t previous, next;
  };
  check(piece.size() < INT32_MAX, ErrorKind::data,
        "[tokenizer] a run of {} bytes without any cut is too long (limit 2 GiB); is this text?",
        piece.size());
  const auto n = static_cast<int32_t>(piece.size());
  std::vector<Node> nodes(piece.size());
  const auto node = [&](int32_t i) -> Node& { return nodes[static_cast<size_t>(i)]; };
  for (int32_t i = 0; i < n; ++i) {
    node(i) = {byte_ids_[static_cast<uint8_t>(piece[static_cast<size_t>(i)])], i - 1, i + 1 < n ? i + 1 : -1};
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap;
  const auto push = [&](int32_t left) {
    if (left < 0 || node(left).next < 0) return;
    const int32_t rank = merges_.find(node(left).symbol, node(node(left).next).symbol).rank;
    if (rank != MergeTable::kNoMerge) {
      heap.push(uint64_t{static_cast<uint32_t>(rank)} << 32 | static_cast<uint32_t>(left));
    }
  };
  for (int32_t i = 0; i + 1 < n; ++i) push(i);
  while (!heap.empty()) {
    const auto rank = static_cast<int32_t>(heap.top() >> 32);
    const auto left = static_cast<int32_t>(heap.top() & 0xffffffffu);
    heap.pop();
    const int32_t right = node(left).symbol < 0 ? -1 : node(left).next;
    if (right < 0) continue;
    const MergeTable::Entry& merge = merges_.find(node(left).symbol, node(right).symbol);
    if (merge.rank != rank) continue;
    node(left).symbol = merge.merged;
    node(left).next = node(right).next;
    if (node(right).next >= 0) node(node(right).next).previous = left;
    node(right).symbol = -1;
    push(node(left).previous);
    push(left);
  }
  for (int32_t i = 0; i >= 0; i = node(i).next) ids.push_back(node(i).symbol);
}

}  // namespace ziggurat
