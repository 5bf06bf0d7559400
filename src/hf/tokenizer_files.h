#pragma once

#include <string>

#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat::hf {

// Writes a tokenizer as transformers loads it, with the same ids: tokenizer.json and tokenizer_config.json.
// No class of transformers is every SentencePiece model, so tokenizer.model comes with code that asks the
// library.
void write_tokenizer(const Tokenizer& tokenizer, int64_t max_sequence, const StagedFolder& folder);

// What its user should know; empty: nothing.
std::string tokenizer_note(const Tokenizer& tokenizer);

}  // namespace ziggurat::hf
