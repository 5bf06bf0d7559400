// Byte-level byte-pair encoding (GPT-2; Radford et al. 2019): the text's bytes are the first symbols, pieces
// are cut by the GPT-2 rule (gpt2_split.h), and within a piece the pair of lowest rank, leftmost first, is
// merged until no pair has a rank.
#pragma once

#include <array>
#include <string>
#include <vector>

#include <ziggurat/data/tokenizer.h>

namespace ziggurat {

// What a vocabulary file says, whatever its format.
struct BpeVocab {
  struct Merge {
    int32_t left = 0, right = 0, merged = 0;  // ids
  };
  std::vector<std::string> tokens;      // [id] -> bytes; empty: no such token
  std::vector<Merge> merges;            // [rank]
  std::vector<int32_t> special_tokens;  // ids that are never made from text, e.g. <|endoftext|>
  std::vector<std::string> not_added;   // what Hugging Face puts around a text, as <s>; nobody does here
};

// (left, right) -> rank and merged id: a flat hash table, since a merge loop asks it for every pair.
class MergeTable {
 public:
  struct Entry {
    uint64_t pair = kEmpty;
    int32_t rank = kNoMerge, merged = -1;
  };
  static constexpr int32_t kNoMerge = INT32_MAX;

  explicit MergeTable(const std::vector<BpeVocab::Merge>& merges);
  // rank == kNoMerge if the pair never merges.
  const Entry& find(int32_t left, int32_t right) const {
    const uint64_t pair = key(left, right);
    size_t slot = hash(pair);
    while (entries_[slot].pair != pair && entries_[slot].pair != kEmpty) slot = (slot + 1) & mask_;
    return entries_[slot];
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t hash(uint64_t pair) const {
    return static_cast<size_t>((pair * 0x9e3779b97f4a7c15ull) >> 20) & mask_;
  }

  std::vector<Entry> entries_;
  size_t mask_ = 0;
};

struct KnownPieces;

class BpeTokenizer final : public Tokenizer {
 public:
  // Error (data) if one of the 256 byte tokens is missing or a merge names no token.
  explicit BpeTokenizer(BpeVocab vocab);

  std::unique_ptr<Encoder> new_encoder() const override;
  std::string decode(std::span<const int32_t> ids) const override;
  bool is_text(int32_t id) const override;
  size_t safe_cut(std::string_view text) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(vocab_.tokens.size()); }
  int32_t eod_id() const override { return eod_id_; }
  std::string kind() const override { return "byte-level-bpe"; }
  std::string remark() const override;
  std::string fingerprint() const override { return fingerprint_; }
  void save(const std::filesystem::path& directory) const override;

  const BpeVocab& vocab() const { return vocab_; }
  // Appends the ids of one piece. O(n log n) in its length, so a piece may be megabytes long.
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  std::shared_ptr<const KnownPieces> pieces_of_vocabulary() const;
  void merge_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& ids) const;

  BpeVocab vocab_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<MergeTable::Entry>
      byte_pairs_;  // [left byte * 256 + right byte]: the first look-ups of a piece
  std::shared_ptr<const KnownPieces> known_pieces_;  // what a new encoder starts with
  int32_t eod_id_ = -1;
  std::string fingerprint_;
};

// File formats (errors of kind data name the file).
BpeVocab read_tokenizer_json(const std::filesystem::path& file);
BpeVocab read_gpt2_files(const std::filesystem::path& merges, const std::filesystem::path& vocab);
// The text of a Hugging Face tokenizer.json.
std::string to_tokenizer_json(const BpeVocab& vocab);

// GPT-2's order of the 256 byte tokens: ids 0-255 are these bytes (printable ASCII first).
std::array<uint8_t, 256> gpt2_byte_order();

}  // namespace ziggurat
