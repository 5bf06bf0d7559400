// A message that a signal handler puts together and writes: no memory is taken, nothing is locked.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <unistd.h>

namespace ziggurat {

class SignalText {
 public:
  SignalText& operator<<(std::string_view text) {
    const size_t n = std::min(text.size(), text_.size() - used_);
    std::memcpy(text_.data() + used_, text.data(), n);
    used_ += n;
    return *this;
  }
  SignalText& operator<<(int64_t number) {
    std::array<char, 20> digits;
    size_t at = digits.size();
    uint64_t rest = number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    do digits[--at] = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (number < 0) *this << "-";
    return *this << std::string_view(digits.data() + at, digits.size() - at);
  }
  std::string_view view() const { return {text_.data(), used_}; }
  void write(int file) const {
    if (::write(file, text_.data(), used_) < 0) return;
  }

 private:
  std::array<char, 8192> text_;
  size_t used_ = 0;
};

}  // namespace ziggurat
