// Which binary runs here.
#pragma once

#include <ziggurat/comm/agreement.h>

namespace ziggurat {

// Version and a hash of the running file, to be compared between ranks. Reads it once (some 10 ms).
NamedValue this_program();

}  // namespace ziggurat
