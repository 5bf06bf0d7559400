#include "data_tools/tokenize.h"

#include <atomic>
#include <cmath>
#include <optional>

#include <xxhash.h>

#include "data_tools/progress.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/gpt2_split.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

// Part of a document in one split, encoded in one go. Long texts are cut where no piece is (gpt2_safe_cut),
// so that several threads share them.
struct Segment {
  std::string text;
  size_t split;
  bool ends_document;
  std::vector<int32_t> ids;
};

constexpr size_t kSegmentBytes = size_t{1} << 20;
constexpr size_t kBatchBytes = size_t{64} << 20;  // text held in memory while it is encoded

// Moves an offset back to the start of a UTF-8 character.
size_t to_character(std::string_view text, size_t offset) {
  while (offset > 0 && offset < text.size() && (static_cast<uint8_t>(text[offset]) & 0xc0) == 0x80) --offset;
  return offset;
}

// The shards of one split while they are being written.
class SplitWriter {
 public:
  SplitWriter(const TokenizeOptions& options, const ShardInfo& common)
      : options_(options), builder_(common), split_(common.split) {}

  void add_document(std::span<const int32_t> ids) {
    const auto n = static_cast<int64_t>(ids.size());
    check(n < INT32_MAX, ErrorKind::data, "a document of {} tokens is too long (limit 2^31); cut it up", n);
    if (builder_.tokens() > 0 && builder_.tokens() + n > options_.shard_tokens) write_shard();
    builder_.append(ids);
  }

  int64_t tokens() const { return written_ + builder_.tokens(); }

  // Gives all shards their names and writes the manifest.
  ShardManifest finish(const ShardInfo& common) {
    if (builder_.documents() > 0) write_shard();
    ShardManifest manifest;
    manifest.folder = options_.output;
    manifest.source = common.source, manifest.split = split_;
    manifest.tokenizer = common.tokenizer, manifest.tokenizer_sha256 = common.tokenizer_sha256;
    manifest.vocab_size = common.vocab_size, manifest.eod_id = common.eod_id;
    const auto count = static_cast<int64_t>(shards_.size());
    for (int64_t i = 0; i < count; ++i) {
      const ShardInfo& info = shards_[static_cast<size_t>(i)];
      const Path file = options_.output / shard_name(options_.source, split_, i, count);
      finish_shard(temporary(i), file, count);
      manifest.shards.push_back(describe_shard(file, info));
    }
    write_manifest(manifest);
    return manifest;
  }

  void remove_temporaries() {
    std::error_code ignored;
    for (size_t i = 0; i <= shards_.size(); ++i) {
      std::filesystem::remove(temporary(static_cast<int64_t>(i)), ignored);
    }
  }

 private:
  Path temporary(int64_t shard) const {
    return options_.output / fmt::format("{}-{}-{:05}.h5.tmp", options_.source, split_, shard);
  }
  void write_shard() {
    const ShardInfo written = builder_.write(temporary(static_cast<int64_t>(shards_.size())));
    written_ += written.n_tokens;
    shards_.push_back(written);
  }

  const TokenizeOptions& options_;
  ShardBuilder builder_;
  std::string split_;
  std::vector<ShardInfo> shards_;
  int64_t written_ = 0;
};

class TokenizeJob {
 public:
  explicit TokenizeJob(const TokenizeOptions& options)
      : options_(options), tokenizer_(load_tokenizer(options.tokenizer)), source_(options.text) {
    check_options();
    for (int i = 0; i < thread_count(); ++i) encoders_.push_back(tokenizer_->new_encoder());
    for (size_t split = 0; split < 3; ++split) writers_[split].emplace(options_, common_info(split));
  }

  std::vector<ShardManifest> run() {
    remove_old_files();
    try {
      encode_all();
      return finish();
    } catch (...) {
      for (auto& writer : writers_) writer->remove_temporaries();
      throw;
    }
  }

 private:
  void check_options() const {
    const auto& s = options_.split;
    check(s[0] >= 0 && s[1] >= 0 && s[2] >= 0 && std::abs(s[0] + s[1] + s[2] - 1.0) < 1e-6,
          ErrorKind::argument, "[tokenize] split: expected three fractions of sum 1, got {}, {}, {}", s[0],
          s[1], s[2]);
    check(options_.shard_tokens >= 1, ErrorKind::argument,
          "[tokenize] shard tokens: expected at least 1, got {}", options_.shard_tokens);
    check(!options_.append_eod || tokenizer_->eod_id() >= 0, ErrorKind::data,
          "{}: the tokenizer has no end-of-document token such as {}; add one or use --no-eod",
          options_.tokenizer.string(), kEndOfText);
  }

  ShardInfo common_info(size_t split) const {
    ShardInfo info;
    info.vocab_size = tokenizer_->vocab_size();
    info.eod_id = tokenizer_->eod_id();
    info.eod_appended = options_.append_eod;
    info.tokenizer = tokenizer_->kind();
    info.tokenizer_sha256 = tokenizer_->fingerprint();
    info.unicode_version = unicode_version();
    info.normalisation = TextNormaliser::kName;
    info.source = options_.source;
    info.split = kSplitNames[split];
    info.created_by = fmt::format("ziggurat {}", kVersion);
    return info;
  }

  // Shards and manifests of an earlier run under the same source name; manifests go first, so that none is
  // ever left that names missing shards.
  void remove_old_files() const {
    std::filesystem::create_directories(options_.output);
    std::vector<Path> manifests, shards;
    for (const auto& entry : std::filesystem::directory_iterator(options_.output)) {
      const std::string name = entry.path().filename().string();
      for (const char* split : kSplitNames) {
        if (name == manifest_name(options_.source, split)) manifests.push_back(entry.path());
        const bool ours = name.starts_with(options_.source + "-" + split + "-");
        if (ours && (name.ends_with(".h5") || name.ends_with(".h5.tmp"))) shards.push_back(entry.path());
      }
    }
    check(options_.overwrite || manifests.empty(), ErrorKind::data,
          "{} already holds shards of source \"{}\"; choose another --output or --source, or say --overwrite",
          options_.output.string(), options_.source);
    for (const Path& path : manifests) std::filesystem::remove(path);
    for (const Path& path : shards) std::filesystem::remove(path);
  }

  // Where a document goes: a number in [0, 1) from the hash of its bytes, compared with the fractions.
  size_t split_of(std::string_view document) const {
    const double u = static_cast<double>(XXH3_64bits(document.data(), document.size()) >> 11) * 0x1p-53;
    if (u < options_.split[0]) return 0;
    return u < options_.split[0] + options_.split[1] || options_.split[2] == 0 ? 1 : 2;
  }

  void add_part(std::string_view text, size_t split) {
    if (text.empty()) return;
    while (!text.empty()) {
      const size_t length =
          text.size() <= kSegmentBytes ? text.size() : gpt2_safe_cut(text.substr(0, kSegmentBytes));
      // No white space in a whole segment: the rest goes in one piece, to stay exact.
      const size_t take = length == kSegmentBytes ? text.size() : length;
      segments_.push_back({std::string(text.substr(0, take)), split, take == text.size(), {}});
      text.remove_prefix(take);
    }
  }

  void add_document(std::string_view document) {
    if (options_.split_by == SplitBy::document) {
      add_part(document, split_of(document));
      return;
    }
    const auto bytes = static_cast<double>(document.size());
    const auto at = [&](double fraction) {
      return fraction >= 1.0 - 1e-9 ? document.size()
                                    : to_character(document, static_cast<size_t>(bytes * fraction));
    };
    const size_t train_end = at(options_.split[0]), valid_end = at(options_.split[0] + options_.split[1]);
    add_part(document.substr(0, train_end), 0);
    add_part(document.substr(train_end, valid_end - train_end), 1);
    add_part(document.substr(valid_end), 2);
  }

  void encode_all() {
    Progress progress("tokenize", source_.total_bytes());
    std::string document;
    size_t pending = 0;
    while (source_.next(document)) {
      ++documents_;
      pending += document.size();
      add_document(document);
      if (pending >= kBatchBytes) {
        encode_batch();
        pending = 0;
        progress.update(source_.bytes_read(), tokens());
      }
    }
    encode_batch();
    progress.finish(source_.bytes_read(), tokens());
  }

  void encode_batch() {
    std::atomic<size_t> next{0};
    parallel_for(static_cast<int64_t>(encoders_.size()), [&](int64_t worker) {
      for (size_t i = next++; i < segments_.size(); i = next++) {
        encoders_[static_cast<size_t>(worker)]->encode(segments_[i].text, segments_[i].ids);
      }
    });
    for (Segment& segment : segments_) {
      document_ids_.insert(document_ids_.end(), segment.ids.begin(), segment.ids.end());
      if (!segment.ends_document) continue;
      if (options_.append_eod) document_ids_.push_back(tokenizer_->eod_id());
      writers_[segment.split]->add_document(document_ids_);
      document_ids_.clear();
    }
    segments_.clear();
  }

  int64_t tokens() const { return writers_[0]->tokens() + writers_[1]->tokens() + writers_[2]->tokens(); }

  std::vector<ShardManifest> finish() {
    check(documents_ > 0, ErrorKind::data, "the input holds no text: {} files, all empty",
          source_.files().size());
    for (size_t split = 0; split < 3; ++split) {
      check(options_.split[split] == 0 || writers_[split]->tokens() > 0, ErrorKind::data,
            "split {} (fraction {}) got no text from {} documents; {}", kSplitNames[split],
            options_.split[split], documents_,
            options_.split_by == SplitBy::document ? "use --split-by text, or a larger fraction"
                                                   : "use longer text or a larger fraction");
    }
    tokenizer_->save(options_.output);
    std::vector<ShardManifest> manifests;
    for (size_t split = 0; split < 3; ++split) {
      if (options_.split[split] > 0) manifests.push_back(writers_[split]->finish(common_info(split)));
    }
    return manifests;
  }

  const TokenizeOptions& options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TextSource source_;
  std::vector<std::unique_ptr<Encoder>> encoders_;  // one per thread
  std::array<std::optional<SplitWriter>, 3> writers_;
  std::vector<Segment> segments_;
  std::vector<int32_t> document_ids_;
  int64_t documents_ = 0;
};

}  // namespace

void train_tokenizer(const TrainTokenizerOptions& options) {
  TextSource source(options.text);
  BpeTrainer trainer;
  Progress progress("count pieces", source.total_bytes());
  std::string document;
  while ((options.max_bytes == 0 || trainer.bytes() < options.max_bytes) && source.next(document)) {
    trainer.add_text(document);
    progress.update(source.bytes_read(), 0);
  }
  progress.finish(source.bytes_read(), 0);
  check(trainer.bytes() > 0, ErrorKind::data, "the input holds no text: {} files, all empty",
        source.files().size());
  const BpeTokenizer tokenizer(trainer.train(options.vocab_size));
  tokenizer.save(options.output);
  info("tokenizer of {} tokens from {} distinct pieces: {}", tokenizer.vocab_size(),
       trainer.distinct_pieces(), (options.output / "tokenizer.json").string());
}

std::vector<ShardManifest> tokenize_text(const TokenizeOptions& options) {
  std::vector<ShardManifest> manifests = TokenizeJob(options).run();
  for (const ShardManifest& manifest : manifests) {
    info("{}: {} tokens, {} documents, {} shards", manifest_name(manifest.source, manifest.split),
         manifest.n_tokens(), manifest.n_docs(), manifest.shards.size());
  }
  return manifests;
}

}  // namespace ziggurat
