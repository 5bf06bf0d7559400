#pragma once

#include <string>

namespace ziggurat::test {

std::string source_dir();  // of the checkout that was built

}  // namespace ziggurat::test
