#include "data/sentencepiece.h"

#include <sentencepiece_processor.h>

#include "data/utf8.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/sha256.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using sentencepiece::SentencePieceProcessor;

class SentencePieceEncoder final : public Encoder {
 public:
  explicit SentencePieceEncoder(const SentencePieceProcessor& processor) : processor_(processor) {}
  void encode(std::string_view text, std::vector<int32_t>& ids) override {
    const auto status = processor_.Encode({text.data(), text.size()}, &pieces_);
    check(status.ok(), ErrorKind::data, "[tokenizer] SentencePiece cannot encode a text of {} bytes: {}",
          text.size(), status.ToString());
    ids.insert(ids.end(), pieces_.begin(), pieces_.end());
  }

 private:
  const SentencePieceProcessor& processor_;
  std::vector<int> pieces_;
};

// The library strips the space in front of a text, and makes characters of pieces that are single bytes.
// Behind an id that has said something, and with whole characters, its texts are end to end: so from there on
// the window that it decodes begins anew.
class SentencePieceDetokenizer final : public Detokenizer {
 public:
  SentencePieceDetokenizer(const Tokenizer& tokenizer, const SentencePieceProcessor& processor)
      : tokenizer_(tokenizer), processor_(processor) {}

  std::string add(int32_t id) override {
    const std::string alone = tokenizer_.decode(std::span(&id, 1));
    window_.push_back(id);
    const size_t held = unfinished();
    std::string text = text_until(window_.size() - held);
    if (held == 0 && !alone.empty()) {
      window_ = {id};
      said_ = alone.size();
    }
    return text;
  }
  std::string finish() override { return text_until(window_.size()); }

 private:
  std::string text_until(size_t count) {
    std::string text = tokenizer_.decode(std::span(window_).first(count));
    text.erase(0, said_);
    said_ += text.size();
    return text;
  }
  // How many ids at the end are bytes of a character that is not whole yet.
  size_t unfinished() const {
    std::string bytes;
    for (size_t i = window_.size(); i > 0 && bytes.size() < 3 && processor_.IsByte(window_[i - 1]); --i) {
      const std::string& piece = processor_.IdToPiece(window_[i - 1]);  // <0xE3>
      bytes.insert(bytes.begin(), static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    }
    return unfinished_utf8(bytes);
  }

  const Tokenizer& tokenizer_;
  const SentencePieceProcessor& processor_;
  std::vector<int32_t> window_;  // the ids that what comes next depends on
  size_t said_ = 0;              // bytes of their text that were returned
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::filesystem::path& file) : model_(read_file(file)) {
    const auto status = processor_.LoadFromSerializedProto(model_);
    check(status.ok() && processor_.GetPieceSize() > 0, ErrorKind::data,
          "{} is no SentencePiece model: {}; name the .model that was trained, not its .vocab", file.string(),
          status.ToString());
    Sha256 hash;
    hash.update("sentencepiece");
    hash.update(model_);
    fingerprint_ = hash.hex();
  }

  std::unique_ptr<Encoder> new_encoder() const override {
    return std::make_unique<SentencePieceEncoder>(processor_);
  }
  std::string decode(std::span<const int32_t> ids) const override {
    for (const int32_t id : ids) {
      check(id >= 0 && id < vocab_size(), ErrorKind::data,
            "[tokenizer] token id {} is outside the vocabulary of {} tokens; was the text tokenized with "
            "another tokenizer?",
            id, vocab_size());
    }
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    check(status.ok(), ErrorKind::data, "[tokenizer] SentencePiece cannot decode: {}", status.ToString());
    return text;
  }
  std::unique_ptr<Detokenizer> new_detokenizer() const override {
    return std::make_unique<SentencePieceDetokenizer>(*this, processor_);
  }
  bool is_text(int32_t id) const override {
    return 0 <= id && id < vocab_size() && !processor_.IsControl(id) && !processor_.IsUnknown(id) &&
           !processor_.IsUnused(id);
  }
  // A piece may reach over white space and the start of a text counts as one: no place is safe.
  size_t safe_cut(std::string_view text) const override { return text.size(); }
  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  int32_t eod_id() const override { return processor_.eos_id(); }
  std::string kind() const override { return "sentencepiece"; }
  std::string fingerprint() const override { return fingerprint_; }
  void save(const std::filesystem::path& directory) const override {
    make_folder(directory);
    replace_file(directory / "tokenizer.model", model_);
  }

 private:
  std::string model_;
  SentencePieceProcessor processor_;
  std::string fingerprint_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  return std::make_unique<SentencePieceTokenizer>(file);
}

}  // namespace ziggurat
