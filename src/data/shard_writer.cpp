#include <algorithm>

#include "data/hdf5_file.h"
#include <ziggurat/core/crc32c.h>
#include <ziggurat/core/error.h>
#include <ziggurat/data/shard.h>
#include <ziggurat/data/shard_format.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

template <class T>
void write_tokens(Hdf5File& file, std::span<const T> tokens) {
  file.write_dataset<T>("data", tokens);
  std::vector<uint32_t> checksums;
  for (size_t first = 0; first < tokens.size(); first += kCrcBlockTokens) {
    const std::span<const T> block =
        tokens.subspan(first, std::min<size_t>(kCrcBlockTokens, tokens.size() - first));
    checksums.push_back(crc32c(block.data(), block.size_bytes()));
  }
  file.write_dataset<uint32_t>("crc32c", checksums);
}

// Resized first, written then: that loop becomes vector instructions, an insert of converted values does not.
template <class T>
void append_as(std::span<const int32_t> ids, std::vector<T>& tokens) {
  const size_t before = tokens.size();
  tokens.resize(before + ids.size());
  T* const to = tokens.data() + before;
  for (size_t i = 0; i < ids.size(); ++i) to[i] = static_cast<T>(ids[i]);
}

}  // namespace

void ShardBuilder::add(std::span<const int32_t> ids) {
  uint32_t highest = 0;  // as unsigned, a negative id is above all
  for (const int32_t id : ids) highest = std::max(highest, static_cast<uint32_t>(id));
  check(ids.empty() || highest < static_cast<uint64_t>(info_.vocab_size), ErrorKind::internal,
        "[shard] token id {} is outside the vocabulary of {}", static_cast<int32_t>(highest),
        info_.vocab_size);
  wide() ? append_as(ids, tokens32_) : append_as(ids, tokens16_);
}

ShardInfo ShardBuilder::write(const std::filesystem::path& path) {
  info_.n_tokens = tokens();
  info_.n_docs = documents();
  Hdf5File file = Hdf5File::create(path);
  wide() ? write_tokens<uint32_t>(file, tokens32_) : write_tokens<uint16_t>(file, tokens16_);
  file.write_dataset<int64_t>("doc_offsets", doc_offsets_);
  file.write_attribute("format", std::string(kShardFormat));
  file.write_attribute("version", kShardVersion);
  file.write_attribute("n_tokens", info_.n_tokens);
  file.write_attribute("n_docs", info_.n_docs);
  file.write_attribute("vocab_size", info_.vocab_size);
  file.write_attribute("eod_id", info_.eod_id);
  file.write_attribute("eod_appended", int64_t{info_.eod_appended});
  file.write_attribute("tokenizer", info_.tokenizer);
  file.write_attribute("tokenizer_sha256", info_.tokenizer_sha256);
  file.write_attribute("unicode_version", info_.unicode_version);
  file.write_attribute("normalisation", info_.normalisation);
  file.write_attribute("source", info_.source);
  file.write_attribute("split", info_.split);
  file.write_attribute("shard", info_.shard);
  file.write_attribute("shards", int64_t{0});
  file.write_attribute("created_by", info_.created_by);
  if (!info_.text_xxh3.empty()) file.write_attribute("text_xxh3", info_.text_xxh3);
  file.close();
  const ShardInfo written = info_;
  tokens16_.clear();
  tokens32_.clear();
  doc_offsets_ = {0};
  ++info_.shard;
  return written;
}

void commit_shard(const std::filesystem::path& from, const std::filesystem::path& to) {
  commit_file(from, to);
}

void finish_shard(const std::filesystem::path& from, const std::filesystem::path& to, int64_t shards) {
  Hdf5File file = Hdf5File::open_to_edit(from);
  file.write_attribute("shards", shards);
  file.close();
  commit_file(from, to);
}

}  // namespace ziggurat
