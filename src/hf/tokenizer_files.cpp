#include "hf/tokenizer_files.h"

#include <nlohmann/json.hpp>

#include "hf/remote_code.h"
#include <ziggurat/data/bpe_tokenizer.h>

namespace ziggurat::hf {

namespace {

// Bytes as a vocabulary without merges: every byte is a token.
BpeTokenizer as_bpe(const Tokenizer& bytes) {
  BpeVocab vocab;
  for (int byte = 0; byte < 256; ++byte) vocab.tokens.emplace_back(1, static_cast<char>(byte));
  vocab.tokens.emplace_back(kEndOfText);
  vocab.special_tokens = {bytes.eod_id()};
  return BpeTokenizer(std::move(vocab));
}

bool is_sentencepiece(const Tokenizer& tokenizer) { return tokenizer.kind() == "sentencepiece"; }

}  // namespace

void write_tokenizer(const Tokenizer& tokenizer, int64_t max_sequence, const StagedFolder& folder) {
  if (tokenizer.kind() == "bytes") {
    as_bpe(tokenizer).save(folder.path());
  } else {
    tokenizer.save(folder.path());
  }
  nlohmann::ordered_json config = {{"clean_up_tokenization_spaces", false},
                                   {"model_max_length", max_sequence}};
  if (is_sentencepiece(tokenizer)) {
    config["tokenizer_class"] = "ZigguratTokenizer";
    config["auto_map"] = {{"AutoTokenizer", {"tokenization_ziggurat.ZigguratTokenizer", nullptr}}};
    folder.write("tokenization_ziggurat.py", tokenization_py());
  } else {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    const int32_t eod = tokenizer.eod_id();
    if (eod >= 0) config["bos_token"] = config["eos_token"] = tokenizer.decode({{eod}});
  }
  folder.write("tokenizer_config.json", config.dump(2) + "\n");
}

std::string tokenizer_note(const Tokenizer& tokenizer) {
  if (is_sentencepiece(tokenizer)) {
    return "The tokenizer is a SentencePiece model: it needs trust_remote_code=True and the package "
           "sentencepiece.";
  }
  return "";
}

}  // namespace ziggurat::hf
