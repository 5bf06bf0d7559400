// What the base class does: ids to text as they come, and short texts to ids.
#include <utility>

#include "data/utf8.h"
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

// For tokenizers whose texts are the ids' bytes end to end.
class BytesDetokenizer final : public Detokenizer {
 public:
  explicit BytesDetokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string add(int32_t id) override {
    std::string text = finish() + tokenizer_.decode(std::span(&id, 1));
    const size_t whole = text.size() - unfinished_utf8(text);
    held_ = text.substr(whole);
    text.resize(whole);
    return text;
  }
  std::string finish() override { return std::exchange(held_, {}); }

 private:
  const Tokenizer& tokenizer_;
  std::string held_;  // begins a character
};

}  // namespace

std::unique_ptr<Detokenizer> Tokenizer::new_detokenizer() const {
  return std::make_unique<BytesDetokenizer>(*this);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  new_encoder()->encode(text, ids);
  return ids;
}

}  // namespace ziggurat
