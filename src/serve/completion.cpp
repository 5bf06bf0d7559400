#include "serve/completion.h"

#include <algorithm>

#include <fmt/format.h>

#include <ziggurat/data/utf8_text.h>
#include <ziggurat/infer/text_stream.h>

namespace ziggurat::serve {

namespace {

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

}  // namespace

std::string token_text(const Tokenizer& tokenizer, int32_t token) {
  if (token == tokenizer.eod_id() && !tokenizer.is_text(token)) return std::string(kEndOfText);
  std::string text = tokenizer.decode(std::span(&token, 1));
  if (!first_invalid_utf8(text)) return text;
  std::string bytes = "bytes:";
  for (const char c : text) bytes += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return bytes;
}

struct Completion::Choice {
  infer::TextStream text;
  std::vector<TokenLogprob> logprobs = {};  // not emitted yet
  int64_t characters_before = 0;            // of what is pending in the text, the echoed prompt included
  int64_t tokens = 0;
  bool echoed = false;  // or has nothing to echo
  const char* finish_reason = nullptr;
};

// What is echoed of a prompt.
struct Completion::Prompt {
  std::string text = {};
  std::vector<TokenLogprob> logprobs = {};  // of every token that is known, if they are asked for
};

Completion::Completion(const Served& served, const CompletionRequest& request, Emit emit)
    : tokenizer_(served.tokenizer),
      request_(request),
      emit_(std::move(emit)),
      prompts_(request.prompts.size()) {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const std::vector<int32_t>& ids = request_.prompts[p];
    usage_.prompt_tokens += std::ssize(ids);
    if (request_.echo) {
      prompts_[p].text = tokenizer_.decode(ids);
      if (request_.logprobs) {
        prompts_[p].logprobs.push_back({token_text(tokenizer_, ids[0]), std::nullopt, {}, 0});
      }
    }
    for (int64_t i = 0; i < request_.n; ++i) {
      choices_.push_back({.text = {tokenizer_, ids, request_.stop},
                          .characters_before = characters(prompts_[p].text),
                          .echoed = !request_.echo});
    }
  }
}

Completion::~Completion() = default;

std::vector<infer::TextRequest> Completion::texts(int64_t first_id) const {
  std::vector<infer::TextRequest> texts;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto sample = static_cast<int64_t>(i) % request_.n;
    texts.push_back({.id = first_id + static_cast<int64_t>(i),
                     .prompt = request_.prompts[i / static_cast<size_t>(request_.n)],
                     .max_new_tokens = request_.max_tokens,
                     .stop_token = tokenizer_.eod_id(),
                     .sampling = request_.sampling,
                     .text = static_cast<int64_t>(i),
                     .alternatives = request_.logprobs.value_or(-1),
                     // One of a prompt's choices does it for all.
                     .scores_prompt = request_.echo && request_.logprobs && sample == 0});
  }
  return texts;
}

TokenLogprob Completion::logprob_of(int32_t token, const infer::Likelihood& likelihood) const {
  TokenLogprob result{token_text(tokenizer_, token), likelihood.logprob, {}, 0};
  bool named = false;
  for (const auto& [other, logprob] : likelihood.alternatives) {
    result.alternatives.emplace_back(token_text(tokenizer_, other), logprob);
    named = named || other == token;
  }
  if (!named) result.alternatives.emplace_back(result.token, likelihood.logprob);
  return result;
}

bool Completion::add_token(size_t number, int32_t token, bool of_prompt,
                           const infer::Likelihood* likelihood) {
  if (of_prompt) {
    add_to_prompt(number / static_cast<size_t>(request_.n), token, *likelihood);
    return wanted_;
  }
  Choice& choice = choices_[number];
  ++choice.tokens;
  ++usage_.completion_tokens;
  if (request_.logprobs) {
    choice.logprobs.push_back(logprob_of(token, *likelihood));
    choice.logprobs.back().text_offset = choice.characters_before + characters(choice.text.pending());
  }
  const bool ends = token == tokenizer_.eod_id(), full = choice.tokens == request_.max_tokens;
  if (!ends) choice.text.add(token);
  if (ends || full) choice.text.finish();
  if (ends || choice.text.stopped()) {
    choice.finish_reason = "stop";
  } else if (full) {
    choice.finish_reason = "length";
  }
  emit(number);
  return wanted_ && choice.finish_reason == nullptr;
}

void Completion::end(size_t number) {
  if (choices_[number].finish_reason != nullptr) return;
  choices_[number].finish_reason = "length";  // nothing was to be written
  emit(number);
}

void Completion::add_to_prompt(size_t number, int32_t token, const infer::Likelihood& likelihood) {
  Prompt& prompt = prompts_[number];
  prompt.logprobs.push_back(logprob_of(token, likelihood));
  if (!is_known(number)) return;
  const std::vector<int32_t>& ids = request_.prompts[number];
  const auto detokenizer = tokenizer_.new_detokenizer();
  int64_t before = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    prompt.logprobs[i].text_offset = before;
    before += characters(detokenizer->add(ids[i]));
  }
  const auto n = static_cast<size_t>(request_.n);
  for (size_t i = number * n; i < (number + 1) * n; ++i) emit(i);
}

// Whether all is known that is echoed of a prompt.
bool Completion::is_known(size_t prompt) const {
  return !request_.logprobs || prompts_[prompt].logprobs.size() == request_.prompts[prompt].size();
}

// The prompt is a choice's first piece, for which its tokens wait.
void Completion::emit(size_t number) {
  Choice& choice = choices_[number];
  if (!choice.echoed) {
    const size_t prompt = number / static_cast<size_t>(request_.n);
    if (!is_known(prompt)) return;
    choice.echoed = true;
    wanted_ = wanted_ && emit_({number, prompts_[prompt].text, prompts_[prompt].logprobs, nullptr});
  }
  Piece piece{number, choice.text.take(), std::move(choice.logprobs), choice.finish_reason};
  choice.logprobs.clear();
  if (piece.finish_reason == nullptr && piece.text.empty() && piece.logprobs.empty()) return;
  choice.characters_before += characters(piece.text);
  wanted_ = wanted_ && emit_(piece);
}

}  // namespace ziggurat::serve
