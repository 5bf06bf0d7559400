#include <algorithm>

#include "data/sha256.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/dataset.h>

namespace ziggurat {
namespace {

int64_t count_samples(const TokenStream& stream, const DatasetOptions& options,
                      const std::filesystem::path& path) {
  check(options.sequence_length >= 1, ErrorKind::argument,
        "[dataset] sequence length: expected at least 1, got {}", options.sequence_length);
  const int64_t samples = (stream.size() - 1) / options.sequence_length;
  check(samples >= 1, ErrorKind::data,
        "{}: {} tokens are too few for one sample of sequence length {} (it needs {}); use more text or a "
        "shorter "
        "sequence",
        path.string(), stream.size(), options.sequence_length, options.sequence_length + 1);
  return samples;
}

}  // namespace

TokenStream::TokenStream(const ShardManifest& manifest) {
  check(!manifest.shards.empty(), ErrorKind::data, "{}/{}: the manifest lists no shards; tokenize again",
        manifest.folder.string(), manifest_name(manifest.source, manifest.split));
  vocab_size_ = manifest.vocab_size;
  eod_id_ = manifest.eod_id;
  tokenizer_sha256_ = manifest.tokenizer_sha256;
  starts_.push_back(0);
  shards_.reserve(manifest.shards.size());
  for (const ShardManifest::Shard& entry : manifest.shards) {
    const ShardReader& shard = shards_.emplace_back(manifest.folder / entry.file);
    const ShardInfo& info = shard.info();
    const std::string name = shard.path().string();
    check(info.n_tokens == entry.n_tokens, ErrorKind::data,
          "{}: {} tokens, its manifest says {}; the shard has changed: tokenize again", name, info.n_tokens,
          entry.n_tokens);
    check(info.tokenizer_sha256 == tokenizer_sha256_ && info.vocab_size == vocab_size_, ErrorKind::data,
          "{}: made with another tokenizer ({:.12}, {} tokens) than its manifest says ({:.12}, {} tokens); "
          "tokenize "
          "all text with one tokenizer",
          name, info.tokenizer_sha256, info.vocab_size, tokenizer_sha256_, vocab_size_);
    starts_.push_back(starts_.back() + info.n_tokens);
  }
}

size_t TokenStream::index_of(int64_t position) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), position);
  return static_cast<size_t>(after - starts_.begin()) - 1;
}

const ShardReader& TokenStream::shard_at(int64_t position) const { return shards_.at(index_of(position)); }

void TokenStream::read(int64_t first, int64_t count, int32_t* tokens) const {
  check(first >= 0 && count >= 0 && first + count <= size(), ErrorKind::internal,
        "[token stream] tokens {}..{} of {}", first, first + count, size());
  for (size_t shard = index_of(first); count > 0; ++shard) {
    const int64_t offset = first - starts_[shard];
    const int64_t part = std::min(count, starts_[shard + 1] - first);
    shards_[shard].read(offset, part, tokens);
    tokens += part, first += part, count -= part;
  }
}

void TokenStream::verify() const {
  for (const ShardReader& shard : shards_) shard.verify();
}

std::string TokenStream::fingerprint() const {
  Sha256 hash;
  hash.update(tokenizer_sha256_);
  for (const ShardReader& shard : shards_) {
    hash.update_u64(static_cast<uint64_t>(shard.size()));
    for (const uint32_t checksum : shard.checksums()) hash.update_u64(checksum);
  }
  return hash.hex();
}

Dataset::Dataset(const std::filesystem::path& path, const std::string& split, const DatasetOptions& options)
    : options_(options),
      stream_(read_manifest(path, split)),
      order_(count_samples(stream_, options, path), options.seed, options.shuffle) {
  check(options.vocab_size == 0 || stream_.vocab_size() <= options.vocab_size, ErrorKind::data,
        "{}: tokens of a vocabulary of {}, but the model's vocabulary has {}; set the model's vocab_size to "
        "at least "
        "{} or tokenize with a smaller tokenizer",
        path.string(), stream_.vocab_size(), options.vocab_size, stream_.vocab_size());
  if (stream_.size() <= options.verify_below) stream_.verify();
}

void Dataset::check_vocabulary(const int32_t* window, int64_t first_token) const {
  if (options_.vocab_size == 0) return;
  uint32_t highest = 0;
  for (int64_t i = 0; i <= options_.sequence_length; ++i) {
    highest = std::max(highest, static_cast<uint32_t>(window[i]));
  }
  if (highest < static_cast<uint64_t>(options_.vocab_size)) return;
  int64_t i = 0;
  while (static_cast<uint32_t>(window[i]) < static_cast<uint64_t>(options_.vocab_size)) ++i;
  fail(ErrorKind::data,
       "{}: token {} of the stream is {}, outside the model's vocabulary of {}; set the model's vocab_size "
       "to the "
       "tokenizer's or check the file with `ziggurat data verify`",
       stream_.shard_at(first_token + i).path().string(), first_token + i, static_cast<uint32_t>(window[i]),
       options_.vocab_size);
}

void Dataset::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  const int64_t S = options_.sequence_length;
  std::vector<int32_t> window(static_cast<size_t>(S) + 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first_token = order_.at(first + i) * S;
    stream_.read(first_token, S + 1, window.data());
    check_vocabulary(window.data(), first_token);
    std::copy_n(window.data(), S, tokens + i * S);
    std::copy_n(window.data() + 1, S, targets + i * S);
  }
}

std::string Dataset::fingerprint() const {
  Sha256 hash;
  hash.update("feistel-1");  // the order's algorithm
  hash.update(stream_.fingerprint());
  hash.update_u64(options_.seed);
  hash.update_u64(options_.shuffle);
  hash.update_u64(static_cast<uint64_t>(options_.sequence_length));
  return hash.hex();
}

}  // namespace ziggurat
