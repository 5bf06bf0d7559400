#include "data_tools/convert.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "data_tools/file_exchange.h"
#include "data_tools/output_folder.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/megatron_file.h>
#include <ziggurat/data/vocabulary.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

JobIdentity job_of(const ConvertOptions& options, const ShardInfo& common) {
  std::vector<Path> files;
  for (const Path& input : options.inputs) {
    if (!is_megatron(input)) {
      files.push_back(input);
      continue;
    }
    for (const char* suffix : {".bin", ".idx"}) files.push_back(megatron_prefix(input).concat(suffix));
  }
  return {
      fmt::format(
          "made by: convert\ntokenizer: {} {:.16}\nvocabulary: {}\nend of document: {}\nshard tokens: {}",
          common.tokenizer, common.tokenizer_sha256, common.vocab_size, common.eod_id, options.shard_tokens),
      identity_of(files)};
}

// Whole shards beside the folder's own, which they join or replace when all are written.
class ShardFolder {
 public:
  ShardFolder(const ConvertOptions& options, ShardInfo common, const Tokenizer* tokenizer)
      : options_(options),
        common_(std::move(common)),
        tokenizer_(tokenizer),
        builder_(common_),
        folder_({options.output, options.source, {options.split}, options.overwrite}) {
    // Nothing is resumed: what a killed run left unfinished, also of this very job, is made again.
    prepared_ = folder_.prepare(job_of(options, common_), common_.tokenizer_sha256, /*resumes=*/false);
  }
  ~ShardFolder() {
    try {
      folder_.discard();
    } catch (const Error&) {  // the next run removes it
    }
  }
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;

  // A run that was killed in its last moment is now finished.
  bool done() const { return prepared_->done; }

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
    if (!ids.empty() && ids.back() == common_.eod_id) ++ended_;
    if (builder_.tokens() >= options_.shard_tokens) write();
  }

  ShardManifest finish() {
    if (builder_.documents() > 0 || shards_ == 0) write();
    if (common_.eod_id >= 0 && ended_ < documents_) {
      warn(
          "{} of {} documents do not end with token {}, which is to end documents; is --eod-id right, and "
          "--tokenizer? Training cannot keep such documents apart",
          documents_ - ended_, documents_, common_.eod_id);
    }
    return folder_.finish({shards_}, tokenizer_).at(0);
  }

 private:
  void write() {
    builder_.write(folder_.temporary(0, shards_));
    commit_shard(folder_.temporary(0, shards_), folder_.whole(0, shards_));
    ++shards_;
  }

  const ConvertOptions& options_;
  ShardInfo common_;
  const Tokenizer* tokenizer_;
  ShardBuilder builder_;
  OutputFolder folder_;
  int64_t documents_ = 0, ended_ = 0, shards_ = 0;  // ended_: documents whose last token says so
  std::optional<PreparedFolder> prepared_;
};

ShardInfo common_info(const ConvertOptions& options, const Tokenizer* tokenizer) {
  ShardInfo common;
  common.vocab_size = options.vocab_size, common.eod_id = options.eod_id;
  if (tokenizer != nullptr) {
    check((options.vocab_size == 0 || options.vocab_size == tokenizer->vocab_size()) &&
              (options.eod_id == -1 || options.eod_id == tokenizer->eod_id()),
          ErrorKind::argument,
          "--vocab-size {} and --eod-id {} are not those of --tokenizer {} ({} and {}); leave them out",
          options.vocab_size, options.eod_id, options.tokenizer.string(), tokenizer->vocab_size(),
          tokenizer->eod_id());
    common.vocab_size = tokenizer->vocab_size(), common.eod_id = tokenizer->eod_id();
    common.tokenizer = tokenizer->kind(), common.tokenizer_sha256 = tokenizer->fingerprint();
  }
  check(common.vocab_size > 0, ErrorKind::argument,
        "token files of other programs name no vocabulary: give --tokenizer, or --vocab-size and --eod-id");
  check(common.eod_id < common.vocab_size, ErrorKind::argument,
        "--eod-id: expected an id below the vocabulary size of {}, got {}", common.vocab_size, common.eod_id);
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

// Of all inputs, in bytes of the files with their tokens.
class InputProgress {
 public:
  explicit InputProgress(const std::vector<Path>& inputs) : progress_("convert", "", bytes_of(inputs)) {}
  void begin(const Path& input) { before_ += here_, here_ = bytes_of({input}); }
  void at(int64_t done, int64_t all) {  // of the input that began last
    progress_.update(before_ + static_cast<int64_t>(static_cast<double>(here_) * static_cast<double>(done) /
                                                    static_cast<double>(std::max<int64_t>(1, all))));
  }
  void finish() { progress_.finish(before_ + here_); }

 private:
  static int64_t bytes_of(const std::vector<Path>& inputs) {
    int64_t bytes = 0;
    for (const Path& input : inputs) {
      std::error_code ignored;
      const auto size = std::filesystem::file_size(
          is_megatron(input) ? Path(megatron_prefix(input).string() + ".bin") : input, ignored);
      if (!ignored) bytes += static_cast<int64_t>(size);
    }
    return bytes;
  }

  Progress progress_;
  int64_t before_ = 0, here_ = 0;
};

// A list of tokens without documents: they end at the end-of-document tokens.
void append_hdf5(const Path& path, const ShardReader& file, int64_t eod_id, ShardFolder& shards,
                 InputProgress& progress) {
  const std::vector<int64_t> offsets = file.doc_offsets();
  std::vector<int32_t> block, document;
  size_t next = 1;  // of offsets
  for (int64_t first = 0; first < file.size(); first += kCrcBlockTokens) {
    progress.at(first, file.size());
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

// Before anything is written.
void check_opens(const Path& input) {
  is_megatron(input) ? void(MegatronFile(input)) : void(ShardReader(input));
}

}  // namespace

void convert_to_shards(const ConvertOptions& options) {
  check(!options.inputs.empty(), ErrorKind::argument, "convert: expected an input file, got none");
  check(options.shard_tokens >= 1, ErrorKind::argument, "--shard-tokens: expected at least 1, got {}",
        options.shard_tokens);
  const auto tokenizer = options.tokenizer.empty() ? nullptr : load_tokenizer(options.tokenizer);
  const ShardInfo common = common_info(options, tokenizer.get());
  for (const Path& input : options.inputs) check_opens(input);
  ShardFolder shards(options, common, tokenizer.get());
  if (shards.done()) return;
  InputProgress progress(options.inputs);
  for (const Path& input : options.inputs) {
    progress.begin(input);
    if (!is_megatron(input)) {
      const ShardReader file(input);
      check_recorded(file.info(), input, common, options);
      append_hdf5(input, file, common.eod_id, shards, progress);
      continue;
    }
    const MegatronFile file(input);
    if (file.documents() != file.sequences()) {
      warn("{}: {} sequences make {} documents; shards keep the documents only", file.path().string(),
           file.sequences(), file.documents());
    }
    std::vector<int32_t> ids;
    for (int64_t d = 0; d < file.documents(); ++d) {
      progress.at(d, file.documents());
      file.read_document(d, ids);
      shards.append(ids, file.path());
    }
  }
  progress.finish();
  const ShardManifest manifest = shards.finish();
  info("{}: {} tokens, {} documents, {} shards",
       (manifest.folder / manifest_name(manifest.source, manifest.split)).string(), manifest.n_tokens(),
       manifest.n_docs(), manifest.shards.size());
}

void convert_to_megatron(const ConvertOptions& options) {
  check(options.inputs.size() == 1, ErrorKind::argument, "convert: expected one input, got {}",
        options.inputs.size());
  const Path prefix = megatron_prefix(options.output), name = prefix.filename();
  check(is_plain_name(name.string()), ErrorKind::argument,
        "--output: expected the prefix of two files, <folder>/<name>, got {}", options.output.string());
  const std::string bin = name.string() + ".bin", index = name.string() + ".idx";
  const TokenStream stream(read_manifest(options.inputs[0], options.split));
  make_output_folder(prefix.has_parent_path() ? prefix.parent_path() : ".");
  const FileExchange exchange(prefix.parent_path(), name.string());
  const FolderLock lock = lock_to_write(exchange.folder());
  exchange.finish_interrupted("", nullptr);
  for (const std::string& file : {bin, index}) {
    check(options.overwrite || !is_there(exchange.folder() / file), ErrorKind::data,
          "{} exists already; choose another --output, or say --overwrite to replace it",
          (exchange.folder() / file).string());
  }
  exchange.discard();
  make_folder(exchange.staging());
  try {
    Progress progress("convert", "tokens");
    write_megatron(stream, exchange.staging() / name, std::ref(progress));
  } catch (...) {
    exchange.discard();
    throw;
  }
  // Never an index beside tokens that are not its own: without one there is no pair.
  exchange.commit({{.remove = {index}, .put = {}}, {.remove = {}, .put = {bin, index}}});
  info("{}: {} tokens in the .bin and .idx files", options.output.string(), stream.size());
}

}  // namespace ziggurat
