// A name that nobody else has.
#pragma once

#include <string>

namespace ziggurat {

std::string random_id();  // 16 hexadecimal digits

}  // namespace ziggurat
