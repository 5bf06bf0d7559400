// Text to token ids and back. A tokenizer is immutable and shared between threads; each thread encodes
// through its own Encoder, which may keep a cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

class Encoder {
 public:
  virtual ~Encoder() = default;
  // Appends the ids of `text` to `ids`. Special tokens written out in the text are ordinary text here.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) = 0;
};

// Turns the ids of one text into it as they come. What all calls return is, end to end, what decode() gives
// for all ids at once; no call ends in the middle of a character.
class Detokenizer {
 public:
  virtual ~Detokenizer() = default;
  // The text that is certain with this id, and was not before. Errors as decode().
  virtual std::string add(int32_t id) = 0;
  // What was held back, a character that was never finished; after the last id.
  virtual std::string finish() = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // For one thread. The tokenizer must outlive it.
  virtual std::unique_ptr<Encoder> new_encoder() const = 0;

  // The bytes of `ids`; not always valid UTF-8, since an id may be a part of a character. Error (data) for an
  // id outside [0, vocab_size).
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  // For one text. The tokenizer must outlive it.
  virtual std::unique_ptr<Detokenizer> new_detokenizer() const;
  // Whether `id` stands for a piece of text: false for special and control tokens (the end of a document
  // too), for the unknown token, and for every id that the vocabulary leaves out.
  virtual bool is_text(int32_t id) const = 0;

  // The last offset in (0, text.size()] where `text` may be cut without changing any id, so that its parts
  // can be encoded at the same time; text.size() if there is no such place or the whole is as good.
  virtual size_t safe_cut(std::string_view text) const = 0;

  virtual int32_t vocab_size() const = 0;            // ids are in [0, vocab_size)
  virtual int32_t eod_id() const = 0;                // ends every document; -1 if the vocabulary has none
  virtual std::string kind() const = 0;              // e.g. "byte-level-bpe"
  virtual std::string remark() const { return {}; }  // what its user should know; empty: nothing
  // SHA-256 (hex) of everything that decides ids; the same whatever file format it was read from.
  virtual std::string fingerprint() const = 0;
  // Writes <directory>/tokenizer.json (SentencePiece: tokenizer.model), atomically, for load_tokenizer.
  virtual void save(const std::filesystem::path& directory) const = 0;

  // For a few short texts; many texts go through an Encoder.
  std::vector<int32_t> encode(std::string_view text) const;
};

// `path`: a tokenizer.json of a byte-level BPE, a SentencePiece *.model, a folder that holds tokenizer.json
// or tokenizer.model, a folder with GPT-2's `vocab.bpe` (or `merges.txt`) and `encoder.json` (or
// `vocab.json`), or the word `bytes`: ids 0-255 are the bytes, 256 ends a document. Errors (data) name file
// and cure.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);
// Whether load_tokenizer would find one in this folder, by the names of the files.
bool holds_tokenizer(const std::filesystem::path& folder);

// GPT-2's name for the end of a document; used when a vocabulary has it or a new one is trained.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

}  // namespace ziggurat
