// Ranges of addresses that arenas may grow in. Nothing is mapped there until it is needed.
#pragma once

#include <cstdint>
#include <string>

namespace ziggurat {

// Of `bytes` addresses that no other room covers, aligned for huge pages; null where this process cannot have
// one. Thread-safe, as all below.
char* take_room(int64_t bytes);
void give_back_room(char* begin);

// Maps memory at exactly this address (null: anywhere); backed on first touch. Null: the system refuses.
char* map_memory(char* at, int64_t bytes);

// How much memory this process may use: the smallest of its limits. Bytes.
int64_t memory_limit();
// Those limits and what is in use, for an error's text.
std::string describe_memory_limits();

}  // namespace ziggurat
