// Unicode normalisation form C.
#pragma once

#include <string>
#include <string_view>

namespace ziggurat {

// Error (argument) naming the Debian package if this build has no utf8proc.
void check_nfc_available();

// `text` in NFC; bytes that are no valid UTF-8 stay as they are.
std::string to_nfc(std::string_view text);

}  // namespace ziggurat
