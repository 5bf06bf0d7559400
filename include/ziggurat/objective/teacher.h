#pragma once

#include <string>

#include <ziggurat/model/gpt.h>

namespace ziggurat::objective {

// A trained model, in memory as long as this is.
class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual const model::Gpt& model() const = 0;
  virtual int64_t bytes() const = 0;  // of its weights on this rank
  // Of all its weights, as it computes with them.
  virtual const std::string& weight_hash() const = 0;
};

}  // namespace ziggurat::objective
