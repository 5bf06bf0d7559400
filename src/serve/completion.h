// A request for completions while it is worked on: from tokens as the engine draws them to pieces of text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ziggurat/infer/scheduler.h>
#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

class Completion {
 public:
  // Every piece of every choice as it becomes certain. emit() returns false where nobody wants more.
  using Emit = std::function<bool(const Piece&)>;
  // `allowed`, the tokenizer and the model of `served` must outlive it.
  Completion(const Served& served, const CompletionRequest& request, Emit emit);
  ~Completion();

  // The text of each choice; their ids are first_id, first_id + 1, ...
  std::vector<infer::TextRequest> texts(int64_t first_id) const;

  // A token of the text of a choice. Returns whether more of them are wanted.
  bool add_token(size_t choice, int32_t token, bool of_prompt, const infer::Likelihood* likelihood);
  void end(size_t choice);  // of its text

  bool wanted() const { return wanted_; }  // by anybody
  const Usage& usage() const { return usage_; }

 private:
  struct Choice;
  struct Prompt;
  TokenLogprob logprob_of(int32_t token, const infer::Likelihood& likelihood) const;
  void add_to_prompt(size_t prompt, int32_t token, const infer::Likelihood& likelihood);
  bool is_known(size_t prompt) const;
  void emit(size_t choice);

  const Tokenizer& tokenizer_;
  CompletionRequest request_;
  Emit emit_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  // prompt * n + sample
  Usage usage_;
  bool wanted_ = true;
};

}  // namespace ziggurat::serve
