#include "data/nfc.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include <utf8proc.h>

#include "data/utf8.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

void append_valid(std::string_view text, std::string& out) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                          static_cast<utf8proc_ssize_t>(text.size()), &result,
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(result, std::free);
  check(n >= 0, ErrorKind::internal, "utf8proc: {}", utf8proc_errmsg(n));
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(n));
}

}  // namespace

void check_nfc_available() {}

std::string to_nfc(std::string_view text) {
  const auto is_ascii = [](char c) { return static_cast<uint8_t>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  const char* valid = text.data();  // [valid, p) is valid UTF-8 not yet normalised
  for (const char* p = valid; p < end;) {
    const Utf8Char c = decode_utf8(p, end);
    if (!c.valid) {
      append_valid({valid, static_cast<size_t>(p - valid)}, out);
      out.append(p, static_cast<size_t>(c.length));
      valid = p + c.length;
    }
    p += c.length;
  }
  append_valid({valid, static_cast<size_t>(end - valid)}, out);
  return out;
}

}  // namespace ziggurat
