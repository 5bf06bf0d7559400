// The plainest tokenizer: an id is a byte, and 256 ends a document.
#pragma once

#include <ziggurat/data/tokenizer.h>

namespace ziggurat {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEod = 256;

  std::unique_ptr<Encoder> new_encoder() const override;
  std::string decode(std::span<const int32_t> ids) const override;
  bool is_text(int32_t id) const override { return 0 <= id && id < kEod; }
  size_t safe_cut(std::string_view text) const override { return text.size(); }
  int32_t vocab_size() const override { return kEod + 1; }
  int32_t eod_id() const override { return kEod; }
  std::string kind() const override { return "bytes"; }
  std::string fingerprint() const override;
  void save(const std::filesystem::path& directory) const override;
};

}  // namespace ziggurat
