// The Python files that come along with what transformers has no class for: src/hf/remote_code, built into
// the binary.
#pragma once

#include <string_view>

namespace ziggurat::hf {

std::string_view configuration_py();
std::string_view modeling_py();
std::string_view tokenization_py();

}  // namespace ziggurat::hf
