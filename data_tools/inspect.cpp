#include "data_tools/inspect.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>

#include <fmt/ostream.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/vocabulary.h>

namespace ziggurat {
namespace {

constexpr const char* kNameTokenizer = "name the tokenizer that the shards were made with by --tokenizer";

// Calls body(tokens, count) over the whole stream.
template <class Body>
void for_each_block(const TokenStream& stream, const Body& body) {
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(kCrcBlockTokens, stream.size())));
  for (int64_t first = 0; first < stream.size(); first += kCrcBlockTokens) {
    const int64_t count = std::min(kCrcBlockTokens, stream.size() - first);
    stream.read(first, count, tokens.data());
    body(tokens.data(), count);
  }
}

std::vector<int64_t> histogram(const TokenStream& stream) {
  std::vector<int64_t> counts(static_cast<size_t>(stream.vocab_size()));
  Progress progress("count tokens", "tokens", stream.size());
  int64_t done = 0;
  for_each_block(stream, [&](const int32_t* tokens, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      check(tokens[i] >= 0 && tokens[i] < stream.vocab_size(), ErrorKind::data,
            "a token is {}, outside the vocabulary of {}; run `ziggurat data verify`", tokens[i],
            stream.vocab_size());
      ++counts[static_cast<size_t>(tokens[i])];
    }
    progress.update(done += count);
  });
  return counts;
}

}  // namespace

void inspect_shards(const std::filesystem::path& path, const std::string& split, std::ostream& out) {
  const ShardManifest manifest = read_manifest(path, split);
  fmt::print(
      out, "{}/{}: {} tokens, {} documents, {} shards, vocabulary {}, end of document {}, tokenizer {} {}\n",
      manifest.folder.string(), manifest_name(manifest.source, manifest.split), manifest.n_tokens(),
      manifest.n_docs(), manifest.shards.size(), manifest.vocab_size, manifest.eod_id, manifest.tokenizer,
      manifest.tokenizer_sha256);
  for (const ShardManifest::Shard& entry : manifest.shards) {
    const ShardReader shard(manifest.folder / entry.file);
    const ShardInfo& i = shard.info();
    fmt::print(out,
               "  {}: {} tokens, {} documents, shard {} of {}, {} bytes, {}, eod appended: {}, text: {}, "
               "unicode {}, "
               "made by {}\n",
               entry.file, i.n_tokens, i.n_docs, i.shard, i.shards, entry.bytes,
               shard.mapped() ? "mapped" : "read through HDF5", i.eod_appended ? "yes" : "no",
               i.normalisation, i.unicode_version, i.created_by);
  }
}

void verify_shards(const std::filesystem::path& path, const std::string& split, std::ostream& out) {
  const ShardManifest manifest = read_manifest(path, split);
  std::optional<Error> first;
  int64_t bytes = 0, done = 0;
  for (const ShardManifest::Shard& entry : manifest.shards) bytes += entry.bytes;
  Progress progress("verify", "", bytes);
  for (const ShardManifest::Shard& entry : manifest.shards) {
    try {
      // What is inside goes first: it names the damaged block, the hash only names the file.
      ShardReader(manifest.folder / entry.file).verify();
      ShardManifest one = manifest;
      one.shards = {entry};
      verify_files(one);
      fmt::print(out, "{}: good, {} tokens\n", entry.file, entry.n_tokens);
    } catch (const Error& e) {
      fmt::print(out, "{}: BAD: {}\n", entry.file, e.what());
      if (!first) first = e;
    }
    progress.update(done += entry.bytes);
  }
  if (first) throw *first;
}

void print_sample(const SampleOptions& options, std::ostream& out) {
  const ShardManifest manifest = read_manifest(options.path, options.split);
  const TokenStream stream(manifest);
  const auto tokenizer = load_tokenizer(options.tokenizer);
  check_fit(vocabulary_of(*tokenizer, options.tokenizer), vocabulary_of(manifest, options.path),
            kNameTokenizer);
  check(options.position >= 0 && options.position < stream.size(), ErrorKind::argument,
        "position: expected 0 to {}, got {}", stream.size() - 1, options.position);
  const int64_t count = std::min(options.count, stream.size() - options.position);
  std::vector<int32_t> ids(static_cast<size_t>(std::max<int64_t>(count, 0)));
  stream.read(options.position, count, ids.data());
  out << tokenizer->decode(ids) << "\n";
}

TokenStats token_stats(const std::filesystem::path& path, const std::string& split) {
  const TokenStream stream(read_manifest(path, split));
  check(stream.vocab_size() > 0 && stream.size() > 0, ErrorKind::data,
        "{}: the shards say no vocabulary size, or hold no tokens; make shards of it with `ziggurat data "
        "convert`",
        path.string());
  TokenStats stats;
  stats.counts = histogram(stream);
  stats.tokens = stream.size();
  for (const int64_t count : stats.counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(stats.tokens);
    stats.entropy -= p * std::log(p);
    ++stats.distinct;
  }
  return stats;
}

namespace {

BaselineLoss baseline_of(const TokenStats& train, const TokenStats& valid) {
  BaselineLoss loss;
  loss.train_tokens = train.tokens, loss.valid_tokens = valid.tokens, loss.distinct_tokens = train.distinct;
  loss.uniform = std::log(static_cast<double>(train.counts.size()));
  const double total = static_cast<double>(train.tokens) + static_cast<double>(train.counts.size());
  for (size_t id = 0; id < train.counts.size(); ++id) {
    loss.unigram -=
        static_cast<double>(valid.counts[id]) * std::log(static_cast<double>(train.counts[id] + 1) / total);
  }
  loss.unigram /= static_cast<double>(valid.tokens);
  return loss;
}

// The text of one token in quotes, its control characters and parts of characters written as \xhh.
std::string readable(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('\'');
  return out;
}

void print_top(const TokenStats& stats, int64_t top, const Tokenizer* tokenizer, std::ostream& out) {
  std::vector<int32_t> ids(stats.counts.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto count = [&](int32_t id) { return stats.counts[static_cast<size_t>(id)]; };
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return count(a) > count(b); });
  ids.resize(static_cast<size_t>(std::clamp<int64_t>(top, 0, stats.distinct)));
  for (const int32_t id : ids) {
    const double percent = 100.0 * static_cast<double>(count(id)) / static_cast<double>(stats.tokens);
    fmt::print(out, "  {:>7} {:>12} {:6.2f}%  {}\n", id, count(id), percent,
               tokenizer ? readable(tokenizer->decode(std::span(&id, 1))) : std::string());
  }
}

// How many tokens of the vocabulary were seen 0 times, 1 to 9, 10 to 99, ... times.
void print_histogram(const TokenStats& stats, std::ostream& out) {
  std::vector<int64_t> decades;
  int64_t unseen = 0;
  for (int64_t count : stats.counts) {
    if (count == 0) {
      ++unseen;
      continue;
    }
    size_t decade = 0;
    while (count >= 10) count /= 10, ++decade;
    decades.resize(std::max(decades.size(), decade + 1));
    ++decades[decade];
  }
  fmt::print(out, "  never seen          {} tokens of the vocabulary\n", unseen);
  for (size_t d = 0; d < decades.size(); ++d) {
    fmt::print(out, "  10^{} times and more  {}\n", d, decades[d]);
  }
}

bool has_split(const std::filesystem::path& path, const std::string& split) {
  if (!std::filesystem::is_directory(path)) return false;
  const std::vector<std::filesystem::path> entries = entries_of(path);
  return std::any_of(entries.begin(), entries.end(), [&](const std::filesystem::path& entry) {
    return entry.filename().string().ends_with("-" + split + ".json");
  });
}

}  // namespace

BaselineLoss baseline_loss(const std::filesystem::path& train, const std::filesystem::path& valid) {
  check_fit(vocabulary_of(read_manifest(train, "train"), train),
            vocabulary_of(read_manifest(valid, "valid"), valid),
            "tokenize train and valid with one tokenizer");
  return baseline_of(token_stats(train, "train"), token_stats(valid, "valid"));
}

void print_stats(const StatsOptions& options, std::ostream& out) {
  std::filesystem::path beside = options.tokenizer;
  if (beside.empty()) {
    beside = std::filesystem::is_directory(options.train) ? options.train : options.train.parent_path();
    if (!holds_tokenizer(beside)) beside.clear();
  }
  const auto tokenizer = beside.empty() ? nullptr : load_tokenizer(beside);
  if (tokenizer) {
    check_fit(vocabulary_of(*tokenizer, beside),
              vocabulary_of(read_manifest(options.train, "train"), options.train), kNameTokenizer);
  }
  const TokenStats train = token_stats(options.train, "train");
  fmt::print(out, "train tokens          {}\ndistinct tokens seen  {} of {}\n", train.tokens, train.distinct,
             train.counts.size());
  fmt::print(out, "entropy               {:.4f} nats a token ({:.4f} bits)\n", train.entropy,
             train.entropy / std::numbers::ln2);
  print_histogram(train, out);
  fmt::print(out, "most frequent: id, count, share, text\n");
  print_top(train, options.top, tokenizer.get(), out);
  fmt::print(out, "loss of a uniform guess   {:.4f} (ln of the vocabulary)\n",
             std::log(static_cast<double>(train.counts.size())));
  if (options.valid.empty() && !has_split(options.train, "valid")) return;
  const BaselineLoss loss =
      baseline_loss(options.train, options.valid.empty() ? options.train : options.valid);
  fmt::print(out, "loss of a unigram model   {:.4f} (fitted on train, measured on {} tokens of valid)\n",
             loss.unigram, loss.valid_tokens);
}

}  // namespace ziggurat
