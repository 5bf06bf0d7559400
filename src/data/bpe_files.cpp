// The two file formats of byte-level BPE vocabularies. Both write a token's bytes as printable characters:
// byte b is the character unicode_of_byte()[b] (GPT-2's bytes_to_unicode).
#include <algorithm>
#include <array>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "data/utf8.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/bpe_tokenizer.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/untrusted_json.h>

namespace ziggurat {
namespace {

using nlohmann::json;
using Path = std::filesystem::path;

// Printable bytes stand for themselves; the other 68 are U+0100, U+0101, ... in byte order.
constexpr bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

std::array<uint32_t, 256> unicode_of_byte() {
  std::array<uint32_t, 256> code_points{};
  uint32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    code_points[static_cast<size_t>(byte)] = is_printable(byte) ? static_cast<uint32_t>(byte) : next++;
  }
  return code_points;
}

std::string to_printable(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = unicode_of_byte();
  std::string text;
  for (const char byte : bytes) {
    const uint32_t c = table[static_cast<uint8_t>(byte)];  // < 0x200: at most two bytes of UTF-8
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xc0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 0x3f));
    }
  }
  return text;
}

std::string from_printable(std::string_view text, const Path& file) {
  static const std::unordered_map<uint32_t, char> table = [] {
    std::unordered_map<uint32_t, char> bytes;
    const auto code_points = unicode_of_byte();
    for (size_t b = 0; b < 256; ++b) bytes[code_points[b]] = static_cast<char>(b);
    return bytes;
  }();
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.data() + i, text.data() + text.size());
    const auto it = table.find(c.code_point);
    check(c.valid && it != table.end(), ErrorKind::data,
          "{}: token \"{}\" is not written in the byte-level alphabet; only byte-level BPE vocabularies (as "
          "GPT-2's) "
          "can be read",
          file.string(), text);
    bytes += it->second;
    i += static_cast<size_t>(c.length);
  }
  return bytes;
}

constexpr int64_t kMaxVocab = int64_t{1} << 24;

void set_token(BpeVocab& vocab, int64_t id, std::string bytes, const Path& file) {
  check(id >= 0 && id < kMaxVocab, ErrorKind::data,
        "{}: token id {} is out of range; the file is damaged or of another kind, get it again",
        file.string(), id);
  const auto index = static_cast<size_t>(id);
  if (index >= vocab.tokens.size()) vocab.tokens.resize(index + 1);
  check(vocab.tokens[index].empty() || vocab.tokens[index] == bytes, ErrorKind::data,
        "{}: two tokens have the id {}; the file is damaged, get it again", file.string(), id);
  vocab.tokens[index] = std::move(bytes);
}

using TokenIds = std::unordered_map<std::string, int32_t>;

TokenIds ids_of(const BpeVocab& vocab) {
  TokenIds ids;
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (!vocab.tokens[id].empty()) ids.emplace(vocab.tokens[id], static_cast<int32_t>(id));
  }
  return ids;
}

void add_merge(BpeVocab& vocab, const TokenIds& ids, const std::string& left, const std::string& right,
               const Path& file) {
  const auto find = [&](const std::string& token) {
    const auto it = ids.find(token);
    check(it != ids.end(), ErrorKind::data,
          "{}: merge {} (\"{}\" + \"{}\") names a token that the vocabulary lacks; do merges and vocabulary "
          "belong "
          "together?",
          file.string(), vocab.merges.size() + 1, to_printable(left), to_printable(right));
    return it->second;
  };
  vocab.merges.push_back({find(left), find(right), find(left + right)});
}

// "left right", both in the printable alphabet.
void add_merge_line(BpeVocab& vocab, const TokenIds& ids, std::string_view line, const Path& file) {
  const size_t space = line.find(' ');
  check(space != std::string_view::npos && space > 0 && space + 1 < line.size(), ErrorKind::data,
        "{}: expected a merge as \"left right\", got \"{}\"", file.string(), line);
  add_merge(vocab, ids, from_printable(line.substr(0, space), file),
            from_printable(line.substr(space + 1), file), file);
}

json parse_json(const Path& file) {
  try {
    return parse_untrusted_json(read_file(file));
  } catch (const JsonFault& fault) {
    fail(ErrorKind::data, "{} is no valid JSON: {}; it is cut off or of another kind, get it again",
         file.string(), fault.what());
  }
}

// Adds "token": id pairs; tokens named in `special` are taken as written.
void add_vocab(BpeVocab& vocab, const json& table, const Path& file) {
  check(table.is_object() && !table.empty(), ErrorKind::data,
        "{}: expected a vocabulary as an object of \"token\": id", file.string());
  for (const auto& [token, id] : table.items()) {
    check(id.is_number_integer(), ErrorKind::data,
          "{}: token \"{}\" has no integer id; the file is damaged, get it again", file.string(), token);
    const bool special =
        token == kEndOfText || std::find(vocab.special_tokens.begin(), vocab.special_tokens.end(),
                                         id.get<int64_t>()) != vocab.special_tokens.end();
    set_token(vocab, id.get<int64_t>(), special ? token : from_printable(token, file), file);
  }
}

// What this reader does not do must not be asked for silently.
void check_supported(const json& root, const Path& file) {
  const json& model = root.at("model");
  const auto unsupported = [&](const std::string& what) {
    fail(ErrorKind::data, "{}: {} is not supported; only byte-level BPE with the GPT-2 split rule is",
         file.string(), what);
  };
  if (model.value("type", std::string("BPE")) != "BPE") unsupported("model type " + model.at("type").dump());
  for (const char* option : {"ignore_merges", "byte_fallback", "fuse_unk"}) {
    // fuse_unk never acts: a byte-level vocabulary has no unknown bytes.
    if (std::string_view(option) != "fuse_unk" && model.contains(option) && model.at(option) == true) {
      unsupported(std::string("model option ") + option);
    }
  }
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.contains(option) && !model.at(option).is_null() && model.at(option) != "" &&
        model.at(option) != 0.0) {
      unsupported(std::string("model option ") + option);
    }
  }
  if (root.contains("normalizer") && !root.at("normalizer").is_null()) {
    unsupported("normalizer " + root.at("normalizer").dump());
  }
  const json split = root.value("pre_tokenizer", json());
  if (!split.is_object() || split.value("type", std::string()) != "ByteLevel" ||
      !split.value("use_regex", true) || split.value("add_prefix_space", true)) {
    unsupported("pre_tokenizer " + split.dump());
  }
}

// The tokens that a Hugging Face post-processor puts around a text.
std::vector<std::string> added_around(const json& processor) {
  std::vector<std::string> names;
  if (!processor.is_object()) return names;
  for (const json& part : processor.value("processors", json::array())) {  // Sequence
    for (const std::string& name : added_around(part)) names.push_back(name);
  }
  for (const json& part : processor.value("single", json::array())) {  // TemplateProcessing
    if (part.contains("SpecialToken")) names.push_back(part.at("SpecialToken").at("id").get<std::string>());
  }
  for (const char* role : {"cls", "sep"}) {  // BertProcessing, RobertaProcessing
    if (processor.contains(role)) names.push_back(processor.at(role).at(0).get<std::string>());
  }
  return names;
}

void read_merges(BpeVocab& vocab, const json& merges, const Path& file) {
  const TokenIds ids = ids_of(vocab);
  for (const json& merge : merges) {
    if (merge.is_string()) {
      add_merge_line(vocab, ids, merge.get<std::string>(), file);
    } else {
      check(merge.is_array() && merge.size() == 2, ErrorKind::data,
            "{}: expected a merge as two tokens, got {}", file.string(), merge.dump());
      add_merge(vocab, ids, from_printable(merge[0].get<std::string>(), file),
                from_printable(merge[1].get<std::string>(), file), file);
    }
  }
}

}  // namespace

std::array<uint8_t, 256> gpt2_byte_order() {
  std::array<uint8_t, 256> order{};
  size_t n = 0;
  for (const bool printable : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (is_printable(byte) == printable) order[n++] = static_cast<uint8_t>(byte);
    }
  }
  return order;
}

BpeVocab read_tokenizer_json(const Path& file) {
  const json root = parse_json(file);
  check(root.is_object() && root.contains("model") && root.at("model").is_object(), ErrorKind::data,
        "{}: expected a Hugging Face tokenizer.json with a \"model\"", file.string());
  try {
    check_supported(root, file);
    BpeVocab vocab;
    for (const json& added : root.value("added_tokens", json::array())) {
      const auto id = added.at("id").get<int64_t>();
      // Hugging Face cuts such tokens out of the text before the split rule.
      check(added.value("special", false), ErrorKind::data,
            "{}: added token {} is not special; vocabularies with ordinary added tokens are not supported",
            file.string(), added.dump());
      set_token(vocab, id, added.at("content").get<std::string>(), file);
      vocab.special_tokens.push_back(static_cast<int32_t>(id));
    }
    add_vocab(vocab, root.at("model").at("vocab"), file);
    read_merges(vocab, root.at("model").at("merges"), file);
    vocab.not_added = added_around(root.value("post_processor", json()));
    return vocab;
  } catch (const json::exception& e) {
    fail(ErrorKind::data,
         "{} is no tokenizer.json as Hugging Face writes it: {}; save it anew by their save_pretrained()",
         file.string(), e.what());
  }
}

BpeVocab read_gpt2_files(const Path& merges, const Path& vocab_file) {
  BpeVocab vocab;
  add_vocab(vocab, parse_json(vocab_file), vocab_file);
  const TokenIds ids = ids_of(vocab);
  if (const auto eod = ids.find(std::string(kEndOfText)); eod != ids.end()) {
    vocab.special_tokens.push_back(eod->second);
  }
  const std::string text = read_file(merges);
  for (size_t begin = 0, line_number = 0; begin < text.size(); ++line_number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const bool version = line_number == 0 && line.starts_with("#version");
    if (!line.empty() && !version) add_merge_line(vocab, ids, line, merges);
  }
  return vocab;
}

std::string to_tokenizer_json(const BpeVocab& vocab) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::object(), merges = nlohmann::ordered_json::array(),
                         added = nlohmann::ordered_json::array();
  for (const int32_t id : vocab.special_tokens) {
    added.push_back({{"id", id},
                     {"content", vocab.tokens[static_cast<size_t>(id)]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const auto name = [&](size_t id) {
    const bool special = std::find(vocab.special_tokens.begin(), vocab.special_tokens.end(),
                                   static_cast<int32_t>(id)) != vocab.special_tokens.end();
    return special ? vocab.tokens[id] : to_printable(vocab.tokens[id]);
  };
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    // Appended, not looked up: an ordered_json object searches all its keys on operator[].
    if (!vocab.tokens[id].empty()) {
      tokens.get_ref<nlohmann::ordered_json::object_t&>().push_back({name(id), static_cast<int64_t>(id)});
    }
  }
  for (const auto& merge : vocab.merges) {
    merges.push_back(to_printable(vocab.tokens[static_cast<size_t>(merge.left)]) + " " +
                     to_printable(vocab.tokens[static_cast<size_t>(merge.right)]));
  }
  const nlohmann::ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::ordered_json root = {{"version", "1.0"},
                                       {"truncation", nullptr},
                                       {"padding", nullptr},
                                       {"added_tokens", added},
                                       {"normalizer", nullptr},
                                       {"pre_tokenizer", byte_level},
                                       {"post_processor", nullptr},
                                       {"decoder", byte_level},
                                       {"model",
                                        {{"type", "BPE"},
                                         {"dropout", nullptr},
                                         {"unk_token", nullptr},
                                         {"continuing_subword_prefix", ""},
                                         {"end_of_word_suffix", ""},
                                         {"fuse_unk", false},
                                         {"byte_fallback", false},
                                         {"vocab", tokens},
                                         {"merges", merges}}}};
  return root.dump(1) + "\n";
}

}  // namespace ziggurat
