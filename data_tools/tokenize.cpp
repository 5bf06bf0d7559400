#include "data_tools/tokenize.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <optional>
#include <unordered_set>

#include <fmt/ranges.h>
#include <unistd.h>
#include <xxhash.h>

#include "data_tools/encode_queue.h"
#include "data_tools/output_folder.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/gpt2_split.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/io/files.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

// Moves an offset back to the start of a UTF-8 character.
size_t to_character(std::string_view text, size_t offset) {
  while (offset > 0 && offset < text.size() && (static_cast<uint8_t>(text[offset]) & 0xc0) == 0x80) --offset;
  return offset;
}

struct Xxh3 {
  static XXH128_hash_t of(std::string_view text) { return XXH3_128bits(text.data(), text.size()); }
  struct Hash {
    size_t operator()(const XXH128_hash_t& h) const { return h.low64; }
  };
  struct Equal {
    bool operator()(const XXH128_hash_t& a, const XXH128_hash_t& b) const {
      return XXH128_isEqual(a, b) != 0;
    }
  };
};

// The shard of a split that documents are going to now.
struct ShardUnderWay {
  int64_t number = 0;
  int64_t bytes = 0, documents = 0;
  XXH128_hash_t text = {};  // chain over the hashes of its documents
  bool ours = false;        // encoded here; else it belongs to another rank or is finished
  std::optional<OutputFolder::Found> finished;

  std::string text_xxh3() const { return fmt::format("{:016x}{:016x}", text.high64, text.low64); }
};

OutputSet output_set(const TokenizeOptions& options) {
  return {options.output, options.source, {kSplitNames.begin(), kSplitNames.end()}, options.overwrite};
}

void check_options(const TokenizeOptions& options, const Tokenizer& tokenizer, const TextSource& source,
                   int ranks) {
  const auto& s = options.split;
  const auto bad = [](double f) { return !(f >= 0 && f <= 1); };  // NaN too
  check(std::ranges::none_of(s, bad) && std::abs(s[0] + s[1] + s[2] - 1.0) < 1e-6, ErrorKind::argument,
        "--split: expected fractions of train, valid and test, from 0 to 1 and of sum 1, got {},{},{}", s[0],
        s[1], s[2]);
  check(options.shard_bytes >= 1, ErrorKind::argument, "--shard-bytes: expected at least 1, got {}",
        options.shard_bytes);
  check(!options.append_eod || tokenizer.eod_id() >= 0, ErrorKind::data,
        "{}: the tokenizer has no end-of-document token such as {}; add one or use --no-eod",
        options.tokenizer.string(), kEndOfText);
  const bool stdin_read = std::ranges::count(source.files(), Path("-")) > 0;
  check(ranks == 1 || !stdin_read, ErrorKind::argument,
        "[tokenize] standard input goes to one process only; give files, or start it without mpirun");
  for (const Path& file : source.files()) {
    const int reason = file == "-" || ::access(file.c_str(), R_OK) == 0 ? 0 : errno;
    check(reason == 0, ErrorKind::data, "--input {}: {}", file.string(), reason_of(reason));
  }
}

// Everything that decides which bytes a shard has, but the text.
std::string options_as_text(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  const TextOptions& text = options.text;
  return fmt::format(
      "made by: ziggurat {}\ntokenizer: {} {:.16}\ntext: {}\nunicode: {}\ndocument per: {} {:?} {:?}\n"
      "split: {}\nsplit by: {}\nshard bytes: {}\nend of document: {}\ndeduplicate: {}",
      kVersion, tokenizer.kind(), tokenizer.fingerprint(), normalisation_name(text), unicode_version(),
      static_cast<int>(text.document_per), text.separator, text.key, fmt::join(options.split, ","),
      static_cast<int>(options.split_by), options.shard_bytes, options.append_eod, options.deduplicate);
}

class TokenizeJob {
 public:
  TokenizeJob(const TokenizeOptions& options, int rank, int ranks)
      : options_(options),
        folder_(output_set(options)),
        rank_(rank),
        ranks_(ranks),
        tokenizer_(load_tokenizer(options.tokenizer)),
        source_(options.text),
        queue_(*tokenizer_, thread_count(),
               [this](size_t split, std::span<const int32_t> ids, bool ends) { append(split, ids, ends); }) {
    check_options(options_, *tokenizer_, source_, ranks_);
    for (size_t split = 0; split < 3; ++split) builders_.emplace_back(common_info(split));
  }

  TokenizeSummary run() {
    for (size_t split = 0; split < 3; ++split) start_shard(split);
    read_all();
    if (rank_ == 0) {
      for (const std::string& remark : source_.remarks()) warn("{}", remark);
    }
    if (const std::string fault = fault_of_result(); !fault.empty()) {
      remove_whole_shards();  // no resuming helps: other text or options are needed
      fail(ErrorKind::data, "{}", fault);
    }
    if (rank_ == 0 && !tokenizer_->remark().empty()) {
      warn("{}: {}", options_.tokenizer.string(), tokenizer_->remark());
    }
    return summary_;
  }

 private:
  ShardInfo common_info(size_t split) const {
    ShardInfo info;
    info.vocab_size = tokenizer_->vocab_size();
    info.eod_id = tokenizer_->eod_id();
    info.eod_appended = options_.append_eod;
    info.tokenizer = tokenizer_->kind();
    info.tokenizer_sha256 = tokenizer_->fingerprint();
    info.unicode_version = unicode_version();
    info.normalisation = normalisation_name(options_.text);
    info.source = options_.source;
    info.split = kSplitNames[split];
    info.created_by = fmt::format("ziggurat {}", kVersion);
    return info;
  }

  void read_all() {
    std::optional<Progress> progress;
    if (rank_ == 0) progress.emplace("tokenize", "", source_.total_bytes());
    std::string document;
    while (source_.next(document)) {
      add_document(document);
      if (progress) progress->update(source_.bytes_read(), tokens_);
    }
    for (size_t split = 0; split < 3; ++split) end_shard(split);
    queue_.finish();
    if (progress) progress->finish(source_.bytes_read(), tokens_);
  }

  void add_document(std::string_view document) {
    const XXH128_hash_t hash = Xxh3::of(document);
    if (options_.deduplicate && !seen_.insert(hash).second) {
      ++summary_.duplicates;
      return;
    }
    ++summary_.documents;
    if (options_.split_by == SplitBy::document) {
      add_part(document, hash, split_of(hash));
      return;
    }
    const auto bytes = static_cast<double>(document.size());
    const auto at = [&](double fraction) {
      return fraction >= 1.0 - 1e-9 ? document.size()
                                    : to_character(document, static_cast<size_t>(bytes * fraction));
    };
    const std::array<size_t, 4> ends = {0, at(options_.split[0]), at(options_.split[0] + options_.split[1]),
                                        document.size()};
    for (size_t split = 0; split < 3; ++split) {
      const std::string_view part = document.substr(ends[split], ends[split + 1] - ends[split]);
      if (!part.empty()) add_part(part, Xxh3::of(part), split);
    }
  }

  // Where a document goes: a number in [0, 1) from the hash of its bytes, compared with the fractions.
  size_t split_of(const XXH128_hash_t& hash) const {
    const double u = static_cast<double>(hash.low64 >> 11) * 0x1p-53;
    if (u < options_.split[0]) return 0;
    return u < options_.split[0] + options_.split[1] || options_.split[2] == 0 ? 1 : 2;
  }

  void add_part(std::string_view text, const XXH128_hash_t& hash, size_t split) {
    if (shards_[split].documents > 0 &&
        shards_[split].bytes + static_cast<int64_t>(text.size()) > options_.shard_bytes) {
      end_shard(split);
      ++shards_[split].number;
      start_shard(split);
    }
    ShardUnderWay& shard = shards_[split];
    shard.bytes += static_cast<int64_t>(text.size());
    ++shard.documents;
    const std::array<XXH128_hash_t, 2> chain = {shard.text, hash};
    shard.text = XXH3_128bits(chain.data(), sizeof(chain));
    if (shard.ours) queue_.add(text, split);
  }

  void start_shard(size_t split) {
    ShardUnderWay& shard = shards_[split];
    const int64_t number = shard.number;
    shard = ShardUnderWay();
    shard.number = number;
    if ((shard.number + static_cast<int64_t>(split)) % ranks_ != rank_) return;
    shard.finished = folder_.find(split, shard.number);
    shard.ours = !shard.finished;
  }

  void end_shard(size_t split) {
    const ShardUnderWay& shard = shards_[split];
    if (shard.documents == 0) return;
    summary_.shards[split] = shard.number + 1;
    if (shard.ours) {
      queue_.add_event(
          [this, split, number = shard.number, text = shard.text_xxh3()] { write(split, number, text); });
    }
    if (shard.finished) keep(*shard.finished, split);
  }

  void append(size_t split, std::span<const int32_t> ids, bool ends_document) {
    builders_[split].add(ids);
    tokens_ += static_cast<int64_t>(ids.size());
    if (!ends_document) return;
    if (options_.append_eod) {
      const int32_t eod = tokenizer_->eod_id();
      builders_[split].add({&eod, 1});
      ++tokens_;
    }
    builders_[split].end_document();
  }

  void write(size_t split, int64_t number, const std::string& text_xxh3) {
    const Path temporary = folder_.temporary(split, number);
    try {
      builders_[split].set_shard(number, text_xxh3);
      builders_[split].write(temporary);
      commit_shard(temporary, folder_.whole(split, number));
    } catch (...) {
      std::error_code ignored;
      std::filesystem::remove(temporary, ignored);
      throw;
    }
  }

  // A shard of an interrupted run is kept only if it is what would be written now.
  void keep(const OutputFolder::Found& found, size_t split) {
    const ShardInfo expected = common_info(split);
    const bool same = found.info.text_xxh3 == shards_[split].text_xxh3() &&
                      found.info.tokenizer_sha256 == expected.tokenizer_sha256 &&
                      found.info.eod_appended == expected.eod_appended &&
                      found.info.normalisation == expected.normalisation;
    if (!same && options_.overwrite) remove_file(found.file);
    check(same || !options_.overwrite, ErrorKind::data,
          "{} was made of other text than the input now holds, so it was removed; run the command again",
          found.file.string());
    check(same, ErrorKind::data,
          "{} is left from an interrupted run with other text, tokenizer or options, so that run cannot be "
          "resumed; say --overwrite to start over",
          found.file.string());
    ++summary_.resumed_shards;
    tokens_ += found.info.n_tokens;
  }

  std::string fault_of_result() const {
    if (summary_.documents == 0) {
      return fmt::format("the input holds no text: {} files, all empty; name files or folders with text",
                         source_.files().size());
    }
    for (size_t split = 0; split < 3; ++split) {
      if (options_.split[split] == 0 || summary_.shards[split] > 0) continue;
      return fmt::format("split {} (fraction {}) got no text from {} documents; {}", kSplitNames[split],
                         options_.split[split], summary_.documents,
                         options_.split_by == SplitBy::document ? "use --split-by text, or a larger fraction"
                                                                : "use longer text or a larger fraction");
    }
    return "";
  }

  void remove_whole_shards() const {
    if (ranks_ == 1) return folder_.discard();
    std::error_code ignored;
    for (size_t split = 0; split < 3; ++split) {
      for (int64_t shard = 0; shard < summary_.shards[split]; ++shard) {
        std::filesystem::remove(folder_.whole(split, shard), ignored);
      }
    }
  }

  const TokenizeOptions& options_;
  OutputFolder folder_;
  int rank_, ranks_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TextSource source_;
  std::vector<ShardBuilder> builders_;  // one per split
  std::array<ShardUnderWay, 3> shards_;
  std::unordered_set<XXH128_hash_t, Xxh3::Hash, Xxh3::Equal> seen_;
  int64_t tokens_ = 0;
  TokenizeSummary summary_;
  EncodeQueue queue_;  // last: its threads end before what they use goes away
};

// Reads until there are `max_bytes` of text; 0: all. Long documents are cut where no piece is, so that the
// progress moves.
void count_pieces(TextSource& source, int64_t max_bytes, BpeTrainer& trainer) {
  constexpr size_t kPartBytes = size_t{4} << 20;
  Progress progress("count pieces", "", source.total_bytes());
  std::string document;
  while ((max_bytes == 0 || trainer.bytes() < max_bytes) && source.next(document)) {
    std::string_view rest = document;
    while (!rest.empty()) {
      const size_t cut = rest.size() <= kPartBytes ? rest.size() : gpt2_safe_cut(rest.substr(0, kPartBytes));
      const std::string_view part = rest.substr(0, cut < kPartBytes ? cut : rest.size());
      trainer.add_text(part);
      rest.remove_prefix(part.size());
      const int64_t ahead = static_cast<int64_t>(rest.size());  // read, but not counted yet
      progress.update(std::max<int64_t>(0, source.bytes_read() - ahead));
    }
  }
  source.stop();
  progress.finish(source.bytes_read());
  for (const std::string& remark : source.remarks()) warn("{}", remark);
}

// Before the text is read.
void check_no_tokenizer(const TrainTokenizerOptions& options) {
  const auto there = [&](const char* name) { return std::filesystem::exists(options.output / name); };
  const bool of_two_files =
      (there("vocab.bpe") || there("merges.txt")) && (there("encoder.json") || there("vocab.json"));
  check(!of_two_files, ErrorKind::data,
        "{} holds a tokenizer of two files, which a tokenizer.json beside them would hide; choose another "
        "--output",
        options.output.string());
  for (const Path& path : entries_of(options.output)) {
    const std::string name = path.filename().string();
    const bool tokenizer = name == "tokenizer.json" || name == "tokenizer.model";
    check(!tokenizer || options.overwrite, ErrorKind::data,
          "{} exists already; choose another --output, or say --overwrite to replace it", path.string());
    const bool manifest = std::ranges::any_of(
        kSplitNames, [&](const char* split) { return name.ends_with(fmt::format("-{}.json", split)); });
    check(
        !manifest, ErrorKind::data,
        "{} lists shards that need the tokenizer beside them; choose another --output, or remove the shards",
        path.string());
  }
}

}  // namespace

void train_tokenizer(const TrainTokenizerOptions& options) {
  TextSource source(options.text);
  make_output_folder(options.output);
  const FolderLock lock = lock_to_write(options.output);
  check_no_tokenizer(options);
  BpeTrainer trainer;
  count_pieces(source, options.max_bytes, trainer);
  check(trainer.bytes() > 0, ErrorKind::data, "the input holds no text: {} files, all empty",
        source.files().size());
  Progress progress("learn merges", "merges", options.vocab_size - 257);
  int64_t merges = 0;
  const BpeTokenizer tokenizer(trainer.train(options.vocab_size, [&] { progress.update(++merges); }));
  progress.finish(merges);
  tokenizer.save(options.output);
  info("tokenizer of {} tokens from {} distinct pieces: {}", tokenizer.vocab_size(),
       trainer.distinct_pieces(), (options.output / "tokenizer.json").string());
}

PreparedFolder prepare_shards(const TokenizeOptions& options, int ranks) {
  OutputFolder folder(output_set(options));
  const auto tokenizer = load_tokenizer(options.tokenizer);
  const TextSource source(options.text);
  check_options(options, *tokenizer, source, ranks);
  return folder.prepare({options_as_text(options, *tokenizer), identity_of(source.files())},
                        tokenizer->fingerprint(),
                        /*resumes=*/true);
}

TokenizeSummary write_shards(const TokenizeOptions& options, int rank, int ranks) {
  const TokenizeSummary summary = TokenizeJob(options, rank, ranks).run();
  if (summary.resumed_shards > 0) {
    info("kept {} finished shards of the interrupted run", summary.resumed_shards);
  }
  return summary;
}

std::vector<ShardManifest> finish_shards(const TokenizeOptions& options, const TokenizeSummary& summary) {
  if (summary.duplicates > 0) info("left out {} duplicate documents", summary.duplicates);
  const auto tokenizer = load_tokenizer(options.tokenizer);
  const std::vector<ShardManifest> manifests =
      OutputFolder(output_set(options))
          .finish({summary.shards.begin(), summary.shards.end()}, tokenizer.get());
  for (const ShardManifest& manifest : manifests) {
    info("{}: {} tokens, {} documents, {} shards", manifest_name(manifest.source, manifest.split),
         manifest.n_tokens(), manifest.n_docs(), manifest.shards.size());
  }
  return manifests;
}

std::vector<ShardManifest> tokenize_text(const TokenizeOptions& options) {
  const PreparedFolder prepared = prepare_shards(options);
  if (!prepared.done) return finish_shards(options, write_shards(options, 0, 1));
  std::vector<ShardManifest> manifests;
  for (size_t split = 0; split < kSplitNames.size(); ++split) {
    if (options.split[split] == 0) continue;
    manifests.push_back(
        read_manifest(options.output / manifest_name(options.source, kSplitNames[split]), ""));
  }
  return manifests;
}

}  // namespace ziggurat
