// Learns a byte-level BPE vocabulary (Sennrich et al. 2016, on bytes as GPT-2 does): counts the pieces of the
// text, then again and again merges the most frequent pair of neighbouring tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <ziggurat/data/bpe_tokenizer.h>

namespace ziggurat {

class BpeTrainer {
 public:
  void add_text(std::string_view document);  // cut by the GPT-2 rule; UTF-8 or any bytes
  int64_t bytes() const { return bytes_; }
  int64_t distinct_pieces() const { return static_cast<int64_t>(counts_.size()); }

  // A vocabulary of exactly `vocab_size` tokens: the 256 bytes (ids 0-255, in GPT-2's order), the merges in
  // rank order, and last <|endoftext|>. A pair must occur at least twice. The same text in any order of
  // documents gives the same vocabulary: equal counts are resolved towards the lower pair of ids.
  // Time and memory (about 24 bytes per byte of the distinct pieces) grow with the text, not with the length
  // of a piece. `after_merge`, if any, is called after each merge. Errors: argument (vocab_size < 257), data
  // (the text has too few repeated pairs; names the most it gives; 4 GiB of distinct pieces).
  BpeVocab train(int32_t vocab_size, const std::function<void()>& after_merge = {}) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> counts_;
  int64_t bytes_ = 0;
};

}  // namespace ziggurat
