#include "data_tools/convert.h"

#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/megatron_file.h>
#include <ziggurat/data/vocabulary.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

// Shards under temporary names, which get their own when all are written and are removed if not.
class ShardFolder {
 public:
  ShardFolder(const ConvertOptions& options, ShardInfo common)
      : options_(options), common_(std::move(common)), builder_(common_) {
    make_folder(options.output);
    const Path manifest = options.output / manifest_name(options.source, options.split);
    check(!std::filesystem::exists(manifest), ErrorKind::data,
          "{} exists already; choose another --output, --source or --split", manifest.string());
  }
  ~ShardFolder() {
    std::error_code ignored;
    for (const Path& path : temporary_) std::filesystem::remove(path, ignored);
  }
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;

  void append(std::span<const int32_t> ids, const Path& from) {
    for (size_t i = 0; i < ids.size(); ++i) {
      check(
          ids[i] >= 0 && ids[i] < common_.vocab_size, ErrorKind::data,
          "{}: a token of document {} is {}, outside the vocabulary of {}; name the tokenizer that the file "
          "was made with",
          from.string(), documents_, ids[i], common_.vocab_size);
    }
    builder_.append(ids);
    ++documents_;
    if (builder_.tokens() >= options_.shard_tokens) write();
  }

  ShardManifest finish() {
    if (builder_.documents() > 0 || infos_.empty()) write();
    ShardManifest manifest = new_manifest(options_.output, common_);
    const auto count = static_cast<int64_t>(infos_.size());
    for (size_t i = 0; i < infos_.size(); ++i) {
      const Path file =
          options_.output / shard_name(common_.source, common_.split, static_cast<int64_t>(i), count);
      finish_shard(temporary_[i], file, count);
      manifest.shards.push_back(describe_shard(file, infos_[i]));
    }
    temporary_.clear();
    write_manifest(manifest);
    return manifest;
  }

 private:
  void write() {
    temporary_.push_back(options_.output /
                         fmt::format("{}-{}-{:05}.h5.tmp", common_.source, common_.split, infos_.size()));
    infos_.push_back(builder_.write(temporary_.back()));
  }

  const ConvertOptions& options_;
  ShardInfo common_;
  ShardBuilder builder_;
  int64_t documents_ = 0;
  std::vector<Path> temporary_;
  std::vector<ShardInfo> infos_;
};

ShardInfo common_info(const ConvertOptions& options) {
  ShardInfo common;
  common.vocab_size = options.vocab_size, common.eod_id = options.eod_id;
  if (!options.tokenizer.empty()) {
    const auto tokenizer = load_tokenizer(options.tokenizer);
    check((options.vocab_size == 0 || options.vocab_size == tokenizer->vocab_size()) &&
              (options.eod_id == -1 || options.eod_id == tokenizer->eod_id()),
          ErrorKind::argument,
          "--vocab-size {} and --eod-id {} are not those of --tokenizer {} ({} and {}); leave them out",
          options.vocab_size, options.eod_id, options.tokenizer.string(), tokenizer->vocab_size(),
          tokenizer->eod_id());
    common.vocab_size = tokenizer->vocab_size(), common.eod_id = tokenizer->eod_id();
    common.tokenizer = tokenizer->kind(), common.tokenizer_sha256 = tokenizer->fingerprint();
    tokenizer->save(options.output);
  }
  check(common.vocab_size > 0, ErrorKind::argument,
        "token files of other programs name no vocabulary: give --tokenizer, or --vocab-size and --eod-id");
  common.source = options.source, common.split = options.split;
  common.normalisation = "unknown", common.created_by = "ziggurat data convert";
  return common;
}

// Files of ours record what made their ids.
void check_recorded(const ShardInfo& recorded, const Path& path, const ShardInfo& common,
                    const ConvertOptions& options) {
  const Vocabulary given = options.tokenizer.empty() ? Vocabulary{"--vocab-size", "", common.vocab_size, true}
                                                     : Vocabulary{"--tokenizer " + options.tokenizer.string(),
                                                                  common.tokenizer_sha256, common.vocab_size};
  check_fit({path.string(), recorded.tokenizer_sha256, recorded.vocab_size}, given,
            "name the tokenizer that the file was made with");
}

// A list of tokens without documents: they end at the end-of-document tokens.
void append_hdf5(const Path& path, const ShardReader& file, int64_t eod_id, ShardFolder& shards) {
  const std::vector<int64_t> offsets = file.doc_offsets();
  std::vector<int32_t> block, document;
  size_t next = 1;  // of offsets
  for (int64_t first = 0; first < file.size(); first += kCrcBlockTokens) {
    block.resize(static_cast<size_t>(std::min(kCrcBlockTokens, file.size() - first)));
    file.read(first, static_cast<int64_t>(block.size()), block.data());
    for (size_t i = 0; i < block.size(); ++i) {
      document.push_back(block[i]);
      bool ends = offsets.empty() && block[i] == eod_id;
      while (next < offsets.size() && offsets[next] == first + static_cast<int64_t>(i) + 1)
        ends = true, ++next;
      if (!ends) continue;
      shards.append(document, path);
      document.clear();
    }
  }
  if (!document.empty()) shards.append(document, path);
}

}  // namespace

void convert_to_shards(const ConvertOptions& options) {
  check(!options.inputs.empty(), ErrorKind::argument, "convert: expected an input file, got none");
  const ShardInfo common = common_info(options);
  ShardFolder shards(options, common);
  for (const Path& input : options.inputs) {
    if (!is_megatron(input)) {
      const ShardReader file(input);
      check_recorded(file.info(), input, common, options);
      append_hdf5(input, file, common.eod_id, shards);
      continue;
    }
    const MegatronFile file(input);
    if (file.documents() != file.sequences()) {
      warn("{}: {} sequences make {} documents; shards keep the documents only", file.path().string(),
           file.sequences(), file.documents());
    }
    std::vector<int32_t> ids;
    for (int64_t d = 0; d < file.documents(); ++d) {
      file.read_document(d, ids);
      shards.append(ids, file.path());
    }
  }
  const ShardManifest manifest = shards.finish();
  info("{}: {} tokens, {} documents, {} shards",
       (manifest.folder / manifest_name(manifest.source, manifest.split)).string(), manifest.n_tokens(),
       manifest.n_docs(), manifest.shards.size());
}

void convert_to_megatron(const ConvertOptions& options) {
  check(options.inputs.size() == 1, ErrorKind::argument, "convert: expected one input, got {}",
        options.inputs.size());
  const TokenStream stream(read_manifest(options.inputs[0], options.split));
  write_megatron(stream, options.output);
  info("{}: {} tokens in the .bin and .idx files", options.output.string(), stream.size());
}

}  // namespace ziggurat
