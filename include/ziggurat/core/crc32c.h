// CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of blocks of tokens in a shard and of records in
// an event file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ziggurat {

uint32_t crc32c(const void* data, size_t bytes);

}  // namespace ziggurat
