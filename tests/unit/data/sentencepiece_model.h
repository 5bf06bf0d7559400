// A SentencePiece model (unigram) of nine pieces or with bytes too, as bytes of a .model file.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace ziggurat::testing {

namespace protobuf {  // the wire format: key = field number << 3 | type; 0 integer, 2 bytes, 5 four bytes

inline std::string integer(int field, int value) {  // both small
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}
inline std::string flag(int field) {  // true, of a field past 15
  return {static_cast<char>(((field << 3) & 0x7f) | 0x80), static_cast<char>(field >> 4), '\1'};
}
inline std::string bytes(int field, const std::string& value) {  // shorter than 128
  return std::string{static_cast<char>(field << 3 | 2), static_cast<char>(value.size())} + value;
}
inline std::string real(int field, float value) {
  std::string four(4, '\0');
  std::memcpy(four.data(), &value, 4);
  return std::string(1, static_cast<char>(field << 3 | 5)) + four;
}

}  // namespace protobuf

// `word`: its second one, with _ for the space in front of it. `with_bytes`: ids 9 to 264 are the bytes, and
// 265 is a piece that is not used.
inline std::string sentencepiece_model(const std::string& word = "_cat", bool with_bytes = false) {
  enum Type { normal = 1, unknown = 2, control = 3, unused = 5, byte = 6 };
  std::string model;
  const auto add = [&](std::string piece, float score, Type type) {
    if (piece[0] == '_') piece = "\xe2\x96\x81" + piece.substr(1);  // U+2581 stands for a space
    model +=
        protobuf::bytes(1, protobuf::bytes(1, piece) + protobuf::real(2, score) + protobuf::integer(3, type));
  };
  add("<unk>", 0, unknown), add("<s>", 0, control), add("</s>", 0, control);
  add("_the", -1, normal), add(word, -1, normal), add("_", -3, normal);
  for (const char* letter : {"c", "a", "t"}) add(letter, -4, normal);
  std::string trainer = protobuf::integer(3, 1);  // model_type: unigram
  if (with_bytes) {
    for (int b = 0; b < 256; ++b) {
      const std::string digits = "0123456789ABCDEF";
      add(std::string("<0x") + digits[static_cast<size_t>(b) / 16] + digits[static_cast<size_t>(b) % 16] +
              ">",
          0, byte);
    }
    add("dog", -4, unused);
    trainer += protobuf::flag(35);  // byte_fallback
  }
  const std::string normalizer = protobuf::integer(3, 1);  // add_dummy_prefix
  return model + protobuf::bytes(2, trainer) + protobuf::bytes(3, normalizer);
}

}  // namespace ziggurat::testing
