// All that is wrong with a config, collected so that the user sees every mistake at once.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

class Problems {
 public:
  // `place_of` says where the value of a full key path was written ("cfg.yaml:3:5"), or "" when nowhere.
  using PlaceOf = std::function<std::string(std::string_view key)>;
  explicit Problems(PlaceOf place_of = {}) : place_of_(std::move(place_of)) {}

  // `key` is relative to the struct being validated ("warmup_tokens", "adam.beta1", "" = the struct itself).
  // `message` says what was expected and what came.
  void add(std::string_view key, std::string_view message);

  // A finished line, for whoever knows the place already.
  void add_line(std::string line);

  // Full path of the struct whose keys the next add() calls name.
  void set_scope(std::string scope) { scope_ = std::move(scope); }

  size_t count() const { return count_; }
  bool full() const { return count_ > kListed; }  // further lines are only counted

  // Throws Error(config) with one line per problem, when there is any.
  void throw_if_any() const;

 private:
  static constexpr size_t kListed = 100;  // more than anybody reads at once; bounds time for hostile files
  PlaceOf place_of_;
  std::string scope_;
  std::vector<std::string> lines_;
  size_t count_ = 0;
};

}  // namespace ziggurat
