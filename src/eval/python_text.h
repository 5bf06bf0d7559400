// Text as Python sees it: what lm-evaluation-harness does to texts, done to UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ziggurat::eval {

// The text before and after the last space (str.rsplit(" ", 1)); nullopt without one.
std::optional<std::pair<std::string, std::string>> split_last_word(std::string_view text);

size_t code_points(std::string_view text);  // len(str)

// Without the white space of str.isspace() at its ends.
std::string_view rstrip(std::string_view text);
std::string_view strip(std::string_view text);

std::string lower(std::string_view text);                // ASCII, Latin, Greek and Cyrillic letters
std::string without_punctuation(std::string_view text);  // string.punctuation, which is ASCII

// A list of string literals as repr() writes it: ['a', "b's", 'c\n'].
// Throws Error(data) beginning with `place`.
std::vector<std::string> parse_string_list(std::string_view text, const std::string& place);

// json.dumps of a string: everything but printable ASCII escaped.
std::string json_dumps(std::string_view text);

// Reads csv.reader(delimiter="\t"): fields in quotes may hold tabs, line ends and doubled quotes.
// Throws Error(data) beginning with `place` where a quote is never closed.
std::vector<std::vector<std::string>> parse_tsv(std::string_view text, const std::string& place);

// The order in which random.Random(seed).shuffle puts n elements: [i] is the element that comes i-th.
std::vector<size_t> shuffled(size_t n, uint32_t seed);

}  // namespace ziggurat::eval
