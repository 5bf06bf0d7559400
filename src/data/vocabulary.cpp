#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/data/vocabulary.h>

namespace ziggurat {
namespace {

// A recorded beginning speaks for the whole.
bool same_tokenizer(const std::string& a, const std::string& b) {
  const size_t digits = std::min(a.size(), b.size());
  return a.compare(0, digits, b, 0, digits) == 0;
}

bool sizes_fit(const Vocabulary& a, const Vocabulary& b) {
  if (a.size == b.size || a.size == 0 || b.size == 0) return true;
  return a.size < b.size ? b.has_spare_ids : a.has_spare_ids;
}

std::string described(const Vocabulary& v) {
  return v.fingerprint.empty() ? v.owner : fmt::format("{} ({:.12})", v.owner, v.fingerprint);
}

}  // namespace

Vocabulary vocabulary_of(const Tokenizer& tokenizer, const std::filesystem::path& path) {
  return {.owner = "the tokenizer " + path.string(),
          .fingerprint = tokenizer.fingerprint(),
          .size = tokenizer.vocab_size(),
          .eod_id = tokenizer.eod_id()};
}

Vocabulary vocabulary_of(const ShardManifest& shards, const std::filesystem::path& path) {
  return {.owner = "the shards " + path.string(),
          .fingerprint = shards.tokenizer_sha256,
          .size = shards.vocab_size,
          .eod_id = shards.eod_id};
}

std::optional<std::string> misfit(const Vocabulary& a, const Vocabulary& b) {
  const bool recorded = !a.fingerprint.empty() && !b.fingerprint.empty();
  if (recorded && !same_tokenizer(a.fingerprint, b.fingerprint)) {
    return fmt::format("{} and {} belong to different tokenizers", described(a), described(b));
  }
  if (!sizes_fit(a, b)) {
    return fmt::format("{} has a vocabulary of {}, {} one of {}", described(a), a.size, described(b), b.size);
  }
  if (recorded || a.eod_id == b.eod_id || a.eod_id < 0 || b.eod_id < 0) return std::nullopt;
  return fmt::format("{} ends documents with token {}, {} with {}", described(a), a.eod_id, described(b),
                     b.eod_id);
}

void check_fit(const Vocabulary& a, const Vocabulary& b, const std::string& cure) {
  const std::optional<std::string> reason = misfit(a, b);
  check(!reason, ErrorKind::data, "{}; {}", reason.value_or(""), cure);
}

}  // namespace ziggurat
