// What to do about a file that cannot be used, said in one place for all that can be wrong with it.
#pragma once

#include <string>

#include <ziggurat/core/error.h>

namespace ziggurat {

inline constexpr const char* kCopyAgain = "make it again, or copy it again from where it is whole";
inline constexpr const char* kTakeAnother =
    "copy it again from where it is whole, or take another checkpoint (`ziggurat checkpoint verify` says "
    "which are)";

// Calls read(); what that finds wrong ends with the cure.
template <class F>
auto with_cure(const char* cure, const F& read) {
  try {
    return read();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::checkpoint) throw;
    throw Error(e.kind(), std::string(e.what()) + "; " + cure);
  }
}

}  // namespace ziggurat
