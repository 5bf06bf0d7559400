// Memory that is needed no more, in the middle of what is.
#pragma once

#include <cstdint>

namespace ziggurat {

// Gives the pages that lie wholly inside back to the system. What was there is lost; the addresses stay.
void release_pages(void* begin, int64_t bytes);

}  // namespace ziggurat
