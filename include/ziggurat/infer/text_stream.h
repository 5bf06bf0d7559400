// The text of tokens as they are drawn, up to a stop.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ziggurat/data/tokenizer.h>

namespace ziggurat::infer {

class TextStream {
 public:
  // What follows `prompt`, as a part of the whole text, ends before the first of `stops`, none of them empty.
  // The tokenizer must outlive it.
  TextStream(const Tokenizer& tokenizer, std::span<const int32_t> prompt, std::vector<std::string> stops);

  void add(int32_t token);
  void finish();  // no more tokens come
  bool stopped() const { return stopped_; }

  // What has not been taken yet, also what may turn out to belong to a stop.
  const std::string& pending() const { return pending_; }
  // What is certain of it.
  std::string take();

 private:
  void append(const std::string& text);

  std::unique_ptr<Detokenizer> detokenizer_;
  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false, finished_ = false;
};

}  // namespace ziggurat::infer
