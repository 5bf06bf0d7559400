// How much of a stream of bytes is no text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace ziggurat {

// Counts bytes that belong to no well-formed UTF-8 character, and NUL bytes. The result depends on the stream
// alone, not on the blocks that it comes in.
class InvalidText {
 public:
  void add(std::string_view block);
  void finish();  // the end: what is left of a character is none

  int64_t bytes() const { return bytes_; }
  int64_t invalid() const { return not_utf8_ + nul(); }
  // Where the first of them is, as in "byte 17 (line 2)"; bytes from 0, lines from 1.
  std::string first_place() const;
  // What there is, and what to do about it: "123 of 456 bytes are ...".
  std::string description() const;

 private:
  size_t scan(std::string_view text, bool to_the_end);  // returns how far it came
  void note(std::string_view text, size_t at);
  int64_t nul() const { return nul_[0] + nul_[1] + nul_[2] + nul_[3]; }
  std::string cure() const;

  std::string cut_;  // the first bytes of a character whose others come with the next block
  int64_t bytes_ = 0, not_utf8_ = 0;
  std::array<int64_t, 4> nul_ = {};  // by their place modulo 4
  int64_t lines_ = 0;                // until the first invalid byte
  int64_t first_byte_ = -1, first_line_ = 0;
};

}  // namespace ziggurat
