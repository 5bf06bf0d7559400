#include "mutations.h"

#include <array>
#include <cctype>
#include <cstring>
#include <string_view>

namespace ziggurat::fuzz {

namespace {

constexpr std::array<uint64_t, 14> kEdges = {
    0,          1,          0x7f,       0xff,       0x7fff,     0xffff, 0x7fffffff,
    0xffffffff, 1ULL << 32, 1ULL << 60, ~0ULL >> 1, 1ULL << 63, ~0ULL,  0x0fffffffffffffff};
constexpr std::array<std::string_view, 24> kWords = {"0",
                                                     "-1",
                                                     "9223372036854775807",
                                                     "9223372036854775808",
                                                     "-9223372036854775808",
                                                     "18446744073709551616",
                                                     "1e308",
                                                     "1e-9",
                                                     "4294967296",
                                                     "2305843009213693952",
                                                     "NaN",
                                                     ".inf",
                                                     "null",
                                                     "true",
                                                     "[]",
                                                     "{}",
                                                     "\"\"",
                                                     "\"..\"",
                                                     "[[[[[[[[[[",
                                                     "{\"a\":",
                                                     "\\ud83d",
                                                     "\xff\xfe",
                                                     "/etc/passwd",
                                                     "\n"};

class Mutation {
 public:
  Mutation(std::string& bytes, std::mt19937_64& random) : bytes_(bytes), random_(random) {}

  void apply() {
    // Runs of zeros, between aligned objects, would say nothing.
    size_t at = below(bytes_.size());
    for (int i = 0; i < 8 && bytes_[at] == 0; ++i) at = below(bytes_.size());
    switch (below(10)) {
      case 0:
        bytes_[at] = static_cast<char>(bytes_[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes_[at] = static_cast<char>(random_());
        break;
      case 2:
        bytes_.insert(at, 1, static_cast<char>(random_()));
        break;
      case 3:
        bytes_.erase(at, 1 + below(16));
        break;
      case 4:  // twice
        bytes_.insert(at, bytes_.substr(below(bytes_.size()), 1 + below(below(2) == 0 ? 16 : 1024)));
        break;
      case 5:
        bytes_.resize(at);
        break;
      case 6:
        put_edge(at);
        break;
      case 7:
        replace_number(at);
        break;
      case 8:
        bytes_.insert(at, kWords[below(kWords.size())]);
        break;
      default:  // another place's bytes
        for (size_t i = 0, from = below(bytes_.size()), n = 1 + below(32); i < n; ++i) {
          if (at + i < bytes_.size() && from + i < bytes_.size()) bytes_[at + i] = bytes_[from + i];
        }
    }
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  void put_edge(size_t at) {
    const uint64_t value = kEdges[below(kEdges.size())] + below(3) - 1;
    const size_t width = size_t{1} << below(4);
    if (at + width <= bytes_.size()) std::memcpy(&bytes_[at], &value, width);
  }

  // The next number or word of a text.
  void replace_number(size_t at) {
    const auto is_part = [&](size_t i) {
      return std::isalnum(static_cast<unsigned char>(bytes_[i])) != 0 || bytes_[i] == '-' || bytes_[i] == '.';
    };
    while (at < bytes_.size() && std::isdigit(static_cast<unsigned char>(bytes_[at])) == 0) ++at;
    size_t end = at;
    while (end < bytes_.size() && is_part(end)) ++end;
    bytes_.replace(at, end - at, kWords[below(kWords.size())]);
  }

  std::string& bytes_;
  std::mt19937_64& random_;
};

}  // namespace

std::string mutate(std::string bytes, std::mt19937_64& random) {
  const uint64_t changes = 1 + random() % 4;
  for (uint64_t i = 0; i < changes && !bytes.empty(); ++i) Mutation(bytes, random).apply();
  return bytes;
}

}  // namespace ziggurat::fuzz
