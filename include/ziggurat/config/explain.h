// A config explained: one key, and where every value of a run came from.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ziggurat/config/config.h>

namespace ziggurat {

// As key_help() and the table name elements of lists: blocks.0.repeat -> blocks.N.repeat.
std::string key_in_lists(std::string_view key);

// What the field lists say of one key, on several lines; of a struct, what is in it too. An index stands for
// any element (blocks.0.repeat). Throws Error(config) for an unknown key, with the nearest one.
std::string key_help(AnyConfig defaults, const std::string& key);

struct ValueOrigin {
  std::string key, value;
  std::string place;                 // base.yaml:3:5, override 'seed=2'; empty: the default
  std::vector<std::string> covered;  // where values were written that this one replaced, newest first
};

// load_config(), and the origin of every value in the order of the field lists.
std::vector<ValueOrigin> explain_config(AnyConfig out, const std::string& path,
                                        std::span<const std::string> overrides);

template <config_detail::Record T>
std::string key_help(const std::string& key) {
  T defaults{};
  return key_help(AnyConfig{&type_info<T>(), &defaults}, key);
}

template <config_detail::Record T>
std::vector<ValueOrigin> explain_config(T& out, const std::string& path,
                                        std::span<const std::string> overrides = {}) {
  return explain_config(AnyConfig{&type_info<T>(), &out}, path, overrides);
}

}  // namespace ziggurat
