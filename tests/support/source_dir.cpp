#include "tests/support/source_dir.h"

namespace ziggurat::test {

// The one file that is compiled with the path, so that a compiler cache can serve all others to every
// checkout.
std::string source_dir() { return ZIGGURAT_SOURCE_DIR; }

}  // namespace ziggurat::test
