// What an option of the command line may be, checked while it is parsed: option->transform(whole_number(1,
// 8)). The message is one line with the option, what was expected and what came:
//   --samples: expected a whole number from 1 to 8, got '0'
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <CLI/Error.hpp>
#include <CLI/Validators.hpp>

namespace ziggurat {

// Far above any count of tokens or bytes, far below what overflows where two are added or multiplied by 8.
inline constexpr uint64_t kLargestOption = 1'000'000'000'000'000;

// Decimal digits, with a sign at most; also "010" is ten.
CLI::Validator whole_number(int64_t least, uint64_t most = kLargestOption);

// In [least, most], with `above_least` in (least, most]; finite.
CLI::Validator real_number(double least, double most, bool above_least = false);

CLI::Validator not_empty();

// One of these words; it becomes the text beside it.
CLI::Validator one_of(std::vector<std::pair<std::string, std::string>> words);
CLI::Validator one_of(const std::vector<std::string>& words);

}  // namespace ziggurat
