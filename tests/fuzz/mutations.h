// What may be wrong with a file: bytes, and what its format makes of them.
#pragma once

#include <random>
#include <string>

namespace ziggurat::fuzz {

// The same for the same state of `random`.
std::string mutate(std::string bytes, std::mt19937_64& random);

}  // namespace ziggurat::fuzz
