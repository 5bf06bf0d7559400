#include "data/sentencepiece.h"
#include <ziggurat/core/error.h>

namespace ziggurat {

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  fail(ErrorKind::data,
       "{} is a SentencePiece model, which this build cannot read; install libsentencepiece-dev and build "
       "again",
       file.string());
}

}  // namespace ziggurat
