// What other trainers call a key. Nobody has to know both: an unknown key of theirs is answered with ours.
#pragma once

#include <span>
#include <string_view>

namespace ziggurat {

struct OtherName {
  std::string_view theirs, ours;  // the last part of their key, our whole path
};

std::span<const OtherName> other_names();

}  // namespace ziggurat
