// SentencePiece models, through their own library.
#pragma once

#include <ziggurat/data/tokenizer.h>

namespace ziggurat {

// `file`: a .model as SentencePiece's trainer writes it. Ids are the library's, without <s> and </s>; </s>,
// if the model has one, ends documents. Errors (data) name the file; without the library the Debian package.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file);

}  // namespace ziggurat
