// Which tokenizer a path means.
#include <nlohmann/json.hpp>

#include "data/byte_tokenizer.h"
#include "data/sentencepiece.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_tokenizer.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

// What ByteTokenizer::save writes; read leniently, since all else goes to the reader of real vocabularies.
bool names_plain_bytes(const Path& json_file) {
  constexpr std::uintmax_t kMostBytes = 4096;
  std::error_code unknown;
  if (std::filesystem::file_size(json_file, unknown) > kMostBytes || unknown) return false;
  const auto root = nlohmann::json::parse(read_file(json_file), nullptr, /*allow_exceptions=*/false);
  return root.is_object() && root.contains("kind") && root["kind"] == "bytes";
}

std::unique_ptr<Tokenizer> load_file(const Path& file) {
  if (file.extension() == ".model") return load_sentencepiece(file);
  if (names_plain_bytes(file)) return std::make_unique<ByteTokenizer>();
  return std::make_unique<BpeTokenizer>(read_tokenizer_json(file));
}

// The files of a tokenizer in a folder: one, or two of GPT-2's.
struct TokenizerFiles {
  Path file, merges, vocab;
  explicit operator bool() const { return !file.empty() || (!merges.empty() && !vocab.empty()); }
};

TokenizerFiles files_in(const Path& folder) {
  const auto first_of = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (is_there(folder / name)) return folder / name;
    }
    return Path();
  };
  return {first_of({"tokenizer.json", "tokenizer.model"}), first_of({"vocab.bpe", "merges.txt"}),
          first_of({"encoder.json", "vocab.json"})};
}

}  // namespace

bool holds_tokenizer(const Path& folder) { return static_cast<bool>(files_in(folder)); }

std::unique_ptr<Tokenizer> load_tokenizer(const Path& path) {
  if (path == "bytes" && !is_there(path)) return std::make_unique<ByteTokenizer>();
  std::error_code reason;
  const auto status = std::filesystem::status(path, reason);
  check(std::filesystem::exists(status) || (reason && reason != std::errc::no_such_file_or_directory),
        ErrorKind::data,
        "tokenizer {} does not exist; make one with `ziggurat data train-tokenizer`, or say `bytes`",
        path.string());
  check(std::filesystem::exists(status), ErrorKind::data,
        "cannot read tokenizer {}: {}; name a tokenizer.json, or the folder of one", path.string(),
        reason_of(reason.value()));
  if (!std::filesystem::is_directory(status)) return load_file(path);
  const TokenizerFiles files = files_in(path);
  check(static_cast<bool>(files), ErrorKind::data,
        "{} holds no tokenizer: expected tokenizer.json, tokenizer.model, or vocab.bpe and encoder.json; "
        "make one with `ziggurat data train-tokenizer`, or name another folder",
        path.string());
  if (!files.file.empty()) return load_file(files.file);
  return std::make_unique<BpeTokenizer>(read_gpt2_files(files.merges, files.vocab));
}

}  // namespace ziggurat
