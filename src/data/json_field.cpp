#include "data/json_field.h"

#include <nlohmann/json.hpp>

#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

// Reads the events of a parse; nothing but the one string is kept.
class FieldReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit FieldReader(const std::string& wanted) : wanted_(wanted) {}

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& value) override {
    if (depth_ == 0) is_object_ = false;
    if (at_wanted_) text_ = std::move(value), found_ = true;
    at_wanted_ = false;
    return true;
  }
  bool key(string_t& name) override {
    at_wanted_ = depth_ == 1 && arrays_ == 0 && name == wanted_;
    return true;
  }
  bool start_object(size_t) override {
    at_wanted_ = false;
    ++depth_;
    return true;
  }
  bool end_object() override { return --depth_, true; }
  bool start_array(size_t) override {
    if (depth_ == 0) is_object_ = false;
    at_wanted_ = false;
    ++arrays_;
    return true;
  }
  bool end_array() override { return --arrays_, true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    reason_ = e.what();
    return false;
  }

  bool is_object() const { return is_object_; }
  bool found() const { return found_; }
  const std::string& reason() const { return reason_; }
  std::string take() { return std::move(text_); }

 private:
  bool other() {
    if (depth_ == 0) is_object_ = false;
    at_wanted_ = false;
    return true;
  }

  const std::string& wanted_;
  std::string text_, reason_;
  int depth_ = 0, arrays_ = 0;
  bool at_wanted_ = false, found_ = false, is_object_ = true;
};

}  // namespace

std::string json_string_field(std::string_view line, const std::string& key, const std::string& place) {
  FieldReader reader(key);
  const bool good = nlohmann::json::sax_parse(line.begin(), line.end(), &reader);
  check(good, ErrorKind::data, "{} is no valid JSON: {}", place, reader.reason());
  check(reader.is_object() && reader.found(), ErrorKind::data,
        "{} has no string under the key \"{}\"; name the key of the text with --key", place, key);
  return reader.take();
}

}  // namespace ziggurat
