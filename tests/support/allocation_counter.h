// Calls of operator new in this process, of any thread and any library linked to it. malloc is not counted,
// nor what oneDNN allocates for the arguments of a primitive while it runs one.
#pragma once

#include <cstdint>

namespace ziggurat::test {

int64_t allocation_count();

}  // namespace ziggurat::test
