// Which tokenizer a path means.
#include <nlohmann/json.hpp>

#include "data/atomic_file.h"
#include "data/byte_tokenizer.h"
#include "data/sentencepiece.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_tokenizer.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

// What ByteTokenizer::save writes; read leniently, since all else goes to the reader of real vocabularies.
bool names_plain_bytes(const Path& json_file) {
  constexpr std::uintmax_t kMostBytes = 4096;
  if (std::filesystem::file_size(json_file) > kMostBytes) return false;
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
      if (std::filesystem::exists(folder / name)) return folder / name;
    }
    return Path();
  };
  return {first_of({"tokenizer.json", "tokenizer.model"}), first_of({"vocab.bpe", "merges.txt"}),
          first_of({"encoder.json", "vocab.json"})};
}

}  // namespace

bool holds_tokenizer(const Path& folder) { return static_cast<bool>(files_in(folder)); }

std::unique_ptr<Tokenizer> load_tokenizer(const Path& path) {
  if (path == "bytes" && !std::filesystem::exists(path)) return std::make_unique<ByteTokenizer>();
  check(std::filesystem::exists(path), ErrorKind::data,
        "tokenizer {} does not exist; make one with `ziggurat data train-tokenizer`, or say `bytes`",
        path.string());
  if (!std::filesystem::is_directory(path)) return load_file(path);
  const TokenizerFiles files = files_in(path);
  check(static_cast<bool>(files), ErrorKind::data,
        "{} holds no tokenizer: expected tokenizer.json, tokenizer.model, or vocab.bpe and encoder.json",
        path.string());
  if (!files.file.empty()) return load_file(files.file);
  return std::make_unique<BpeTokenizer>(read_gpt2_files(files.merges, files.vocab));
}

}  // namespace ziggurat
