#include "data_tools/inspect.h"

#include <cmath>
#include <optional>

#include <fmt/ostream.h>

#include <ziggurat/core/error.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

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
  for_each_block(stream, [&](const int32_t* tokens, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      check(tokens[i] >= 0 && tokens[i] < stream.vocab_size(), ErrorKind::data,
            "a token is {}, outside the vocabulary of {}; run `ziggurat data verify`", tokens[i],
            stream.vocab_size());
      ++counts[static_cast<size_t>(tokens[i])];
    }
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
  }
  if (first) throw *first;
}

void print_sample(const SampleOptions& options, std::ostream& out) {
  const TokenStream stream(read_manifest(options.path, options.split));
  const auto tokenizer = load_tokenizer(options.tokenizer);
  check(stream.tokenizer_sha256().empty() || stream.tokenizer_sha256() == tokenizer->fingerprint(),
        ErrorKind::data,
        "{} was made with another tokenizer ({:.12}) than {} ({:.12}); name the one beside the shards",
        options.path.string(), stream.tokenizer_sha256(), options.tokenizer.string(),
        tokenizer->fingerprint());
  check(options.position >= 0 && options.position < stream.size(), ErrorKind::argument,
        "position: expected 0 to {}, got {}", stream.size() - 1, options.position);
  const int64_t count = std::min(options.count, stream.size() - options.position);
  std::vector<int32_t> ids(static_cast<size_t>(std::max<int64_t>(count, 0)));
  stream.read(options.position, count, ids.data());
  out << tokenizer->decode(ids) << "\n";
}

BaselineLoss baseline_loss(const std::filesystem::path& train_path, const std::filesystem::path& valid_path) {
  const TokenStream train(read_manifest(train_path, "train")), valid(read_manifest(valid_path, "valid"));
  check(train.tokenizer_sha256() == valid.tokenizer_sha256(), ErrorKind::data,
        "{} and {} were made with different tokenizers; tokenize both with one", train_path.string(),
        valid_path.string());
  check(train.vocab_size() > 0 && valid.size() > 0, ErrorKind::data,
        "{}: the shards say no vocabulary size, or {} is empty", train_path.string(), valid_path.string());
  const std::vector<int64_t> counts = histogram(train), seen = histogram(valid);
  BaselineLoss loss;
  loss.train_tokens = train.size(), loss.valid_tokens = valid.size();
  loss.uniform = std::log(static_cast<double>(train.vocab_size()));
  const double total = static_cast<double>(train.size() + train.vocab_size());
  for (size_t id = 0; id < counts.size(); ++id) {
    loss.distinct_tokens += counts[id] > 0;
    loss.unigram -= static_cast<double>(seen[id]) * std::log(static_cast<double>(counts[id] + 1) / total);
  }
  loss.unigram /= static_cast<double>(valid.size());
  return loss;
}

void print_stats(const std::filesystem::path& train, const std::filesystem::path& valid, std::ostream& out) {
  const BaselineLoss loss = baseline_loss(train, valid);
  fmt::print(out, "train tokens          {}\nvalid tokens          {}\ndistinct tokens seen  {}\n",
             loss.train_tokens, loss.valid_tokens, loss.distinct_tokens);
  fmt::print(out, "loss of a uniform guess   {:.4f} (ln of the vocabulary)\n", loss.uniform);
  fmt::print(out, "loss of a unigram model   {:.4f} (fitted on train, measured on valid)\n", loss.unigram);
}

}  // namespace ziggurat
