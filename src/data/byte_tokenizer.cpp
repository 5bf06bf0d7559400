#include "data/byte_tokenizer.h"

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/sha256.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

class ByteEncoder final : public Encoder {
 public:
  void encode(std::string_view text, std::vector<int32_t>& ids) override {
    const size_t before = ids.size();
    ids.resize(before + text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[before + i] = static_cast<uint8_t>(text[i]);
  }
};

}  // namespace

std::unique_ptr<Encoder> ByteTokenizer::new_encoder() const { return std::make_unique<ByteEncoder>(); }

std::string ByteTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    check(id >= 0 && id <= kEod, ErrorKind::data, "[tokenizer] token id {} is no byte and not {}", id, kEod);
    id == kEod ? text += kEndOfText : text += static_cast<char>(id);
  }
  return text;
}

std::string ByteTokenizer::fingerprint() const {
  Sha256 hash;
  hash.update("bytes/257");
  return hash.hex();
}

void ByteTokenizer::save(const std::filesystem::path& directory) const {
  make_folder(directory);
  replace_file(directory / "tokenizer.json", "{\"kind\": \"bytes\"}\n");
}

}  // namespace ziggurat
