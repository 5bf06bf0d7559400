#include "data/source_checks.h"

#include <algorithm>

#include <fmt/ranges.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>

namespace ziggurat {
namespace {

constexpr int64_t kShards = 16, kDocuments = 64;  // looked at: of a source, of a shard

struct Ends {
  int64_t looked = 0, missing = 0;
  std::string first_file;  // of a document without the token
};

// body(i) for up to `most` of 0 .. n - 1, first and last among them.
template <class Body>
void spread(int64_t n, int64_t most, const Body& body) {
  const int64_t count = std::min(n, most);
  for (int64_t i = 0; i < count; ++i) body(count == 1 ? 0 : i * (n - 1) / (count - 1));
}

// Of a file that lists no documents: does the token occur at all near its beginning?
bool occurs(const ShardReader& shard, int32_t token) {
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(shard.size(), kCrcBlockTokens)));
  shard.read(0, static_cast<int64_t>(tokens.size()), tokens.data());
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

Ends look_at_ends(const TokenStream& stream) {
  const auto eod = static_cast<int32_t>(stream.eod_id());
  Ends ends;
  const auto count = [&](const ShardReader& shard, bool found) {
    ++ends.looked;
    if (found) return;
    if (ends.missing++ == 0) ends.first_file = shard.path().string();
  };
  spread(static_cast<int64_t>(stream.shards().size()), kShards, [&](int64_t s) {
    const ShardReader& shard = stream.shards()[static_cast<size_t>(s)];
    const std::vector<int64_t> offsets = shard.doc_offsets();
    if (offsets.size() < 2) return count(shard, occurs(shard, eod));
    spread(static_cast<int64_t>(offsets.size()) - 1, kDocuments, [&](int64_t d) {
      const int64_t begin = offsets[static_cast<size_t>(d)], end = offsets[static_cast<size_t>(d) + 1];
      if (begin < 0 || begin >= end || end > shard.size()) return;  // empty, or for `verify` to judge
      int32_t last = 0;
      shard.read(end - 1, 1, &last);
      count(shard, last == eod);
    });
  });
  return ends;
}

}  // namespace

std::vector<const char*> options_on_documents(const DataConfig& config) {
  std::vector<const char*> on;
  if (config.mask_eod_loss) on.push_back("mask_eod_loss");
  if (config.reset_positions) on.push_back("reset_positions");
  if (config.reset_attention) on.push_back("reset_attention");
  return on;
}

void check_has_eod(const DataConfig& config, const std::string& key, int64_t eod_id) {
  for (const char* option : options_on_documents(config)) {
    check(eod_id >= 0, ErrorKind::config,
          "data.{}: the tokens of {} have no end-of-document token; set it to false, or tokenize with a "
          "tokenizer that has one (for files of other programs: `ziggurat data convert --eod-id`)",
          option, key);
  }
}

void check_documents_end(const DataConfig& config, const std::string& key, const TokenStream& stream) {
  check_has_eod(config, key, stream.eod_id());
  const std::vector<const char*> options = options_on_documents(config);
  if (options.empty()) return;
  const Ends ends = look_at_ends(stream);
  if (ends.missing == 0) return;
  const std::string what = fmt::format(
      "data.{}: of {} documents of {} looked at, {} do not end with the end-of-document token {} "
      "(the first in {})",
      fmt::join(options, ", data."), ends.looked, key, ends.missing, stream.eod_id(), ends.first_file);
  check(10 * ends.missing <= ends.looked, ErrorKind::config,
        "{}; tokenize the text again without --no-eod, name the token that ends documents (`ziggurat data "
        "convert --eod-id`), or set the option to false",
        what);
  warn("{}: these are not told from what follows them", what);
}

}  // namespace ziggurat
