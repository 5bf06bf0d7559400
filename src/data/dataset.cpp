#include <algorithm>

#include "data/megatron_order.h"
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

void TokenStream::prefetch(int64_t first, int64_t count) const {
  for (size_t shard = index_of(first); count > 0 && shard < shards_.size(); ++shard) {
    const int64_t part = std::min(count, starts_[shard + 1] - first);
    shards_[shard].prefetch(first - starts_[shard], part);
    first += part, count -= part;
  }
}

std::vector<int64_t> TokenStream::document_starts() const {
  std::vector<int64_t> starts;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const std::vector<int64_t> offsets = shards_[i].doc_offsets();
    const bool good = std::is_sorted(offsets.begin(), offsets.end()) && !offsets.empty() &&
                      offsets.front() == 0 && offsets.back() == shards_[i].size();
    check(good, ErrorKind::data,
          "{}: /doc_offsets must list the documents, rising from 0 to {}; make shards of it with `ziggurat "
          "data convert`",
          shards_[i].path().string(), shards_[i].size());
    for (size_t d = 0; d + 1 < offsets.size(); ++d) starts.push_back(starts_[i] + offsets[d]);
  }
  starts.push_back(size());
  return starts;
}

std::string TokenStream::fingerprint() const {
  std::string lines = fmt::format("tokenizer: {:.16}\n", tokenizer_sha256_);
  for (const ShardReader& shard : shards_) {
    lines += fmt::format("shard {}: {} tokens, {:.16}\n", shard.path().filename().string(), shard.size(),
                         shard.fingerprint());
  }
  return lines;
}

Dataset::Dataset(const std::filesystem::path& path, const std::string& split, const DatasetOptions& options)
    : options_(options),
      stream_(read_manifest(path, split)),
      samples_per_epoch_(count_samples(stream_, options, path)),
      order_(samples_per_epoch_, options.seed, options.shuffle) {
  check(
      options.vocab_size == 0 || stream_.vocab_size() <= options.vocab_size, ErrorKind::data,
      "{}: tokens of a vocabulary of {}, but the model's vocabulary has {}{}; set the model's vocab_size to "
      "at least {} or tokenize with a smaller tokenizer",
      path.string(), stream_.vocab_size(), options.vocab_size + options.sentinels,
      options.sentinels > 0
          ? fmt::format(", of which {} are sentinels (data.ul2.sentinels)", options.sentinels)
          : "",
      stream_.vocab_size() + options.sentinels);
  if (stream_.size() <= options.verify_below) stream_.verify();
  if (options.order == OrderKind::megatron) {
    megatron_ = std::make_unique<MegatronOrder>(stream_.document_starts(), options.sequence_length,
                                                options.samples, options.seed);
  }
}

Dataset::~Dataset() = default;

void Dataset::check_vocabulary(const int32_t* tokens, int64_t first_token, int64_t count) const {
  if (options_.vocab_size == 0) return;
  uint32_t highest = 0;
  for (int64_t i = 0; i < count; ++i) highest = std::max(highest, static_cast<uint32_t>(tokens[i]));
  if (highest < static_cast<uint64_t>(options_.vocab_size)) return;
  int64_t i = 0;
  while (static_cast<uint32_t>(tokens[i]) < static_cast<uint64_t>(options_.vocab_size)) ++i;
  fail(ErrorKind::data,
       "{}: token {} of the stream is {}, outside the model's vocabulary of {}; set the model's vocab_size "
       "to the tokenizer's or check the file with `ziggurat data verify`",
       stream_.shard_at(first_token + i).path().string(), first_token + i, static_cast<uint32_t>(tokens[i]),
       options_.vocab_size);
}

template <class Body>
void Dataset::for_each_part(int64_t position, const Body& body) const {
  if (!megatron_) return body(order_.at(position) * options_.sequence_length, options_.sequence_length + 1);
  check(position < megatron_->samples(), ErrorKind::data,
        "the Megatron order was laid out for {} samples ({} epochs of {}), sample {} lies past its end; set "
        "train.tokens to what the run takes",
        megatron_->samples(), megatron_->epochs(), stream_.shards()[0].path().parent_path().string(),
        position);
  megatron_->for_each_part(position, body);
}

void Dataset::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  const int64_t S = options_.sequence_length;
  std::vector<int32_t> window(static_cast<size_t>(S) + 1);
  for (int64_t i = 0; i < count; ++i) {
    int32_t* next = window.data();
    for_each_part(first + i, [&](int64_t first_token, int64_t part) {
      stream_.read(first_token, part, next);
      check_vocabulary(next, first_token, part);
      next += part;
    });
    std::copy_n(window.data(), S, tokens + i * S);
    std::copy_n(window.data() + 1, S, targets + i * S);
    if (!options_.mask_eod_loss) continue;
    const int32_t eod = eod_id();
    for (int64_t t = 0; t < S; ++t) {
      if (window[static_cast<size_t>(t)] == eod) targets[i * S + t] = -1;
    }
  }
}

void Dataset::prefetch(int64_t first, int64_t count) const {
  if (megatron_) count = std::min(count, megatron_->samples() - first);
  for (int64_t i = 0; i < count; ++i) {
    for_each_part(first + i, [&](int64_t token, int64_t part) { stream_.prefetch(token, part); });
  }
}

std::string Dataset::fingerprint() const {
  std::string order = "in order";
  if (megatron_) {
    order = fmt::format("megatron, seed {}, {} epochs{}", options_.seed, megatron_->epochs(),
                        megatron_->last_epoch_apart() ? ", the last apart" : "");
  } else if (options_.shuffle) {
    order = fmt::format("keyed, seed {}", options_.seed);
  }
  return fmt::format("sequence length: {}\norder: {}\n", options_.sequence_length, order) +
         stream_.fingerprint();
}

}  // namespace ziggurat
