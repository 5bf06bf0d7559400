// Files that are no text, known by their first bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ziggurat {

struct ForeignFormat {
  std::string_view name;  // e.g. "xz data"; empty: none that is known
  std::string_view cure;  // what to do with it, e.g. "unpack it first, as in: xz -d FILE"
};

// How many first bytes of a file foreign_format wants to see; fewer only if the file has no more.
inline constexpr size_t kFormatHeadBytes = 1024;

// Text that begins with the letters of a magic number, as in "BZh" or "MZ", is not taken for something else:
// such letters count only when control characters follow that no text has.
ForeignFormat foreign_format(std::string_view head);

}  // namespace ziggurat
