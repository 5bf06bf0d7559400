#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include <ziggurat/data/utf8_text.h>
#include <ziggurat/infer/next_token.h>
#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

namespace {

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

// How much of the end of `text` may be the beginning of a stop.
size_t may_become_stop(std::string_view text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n) {
      if (stop.compare(0, n, text.substr(text.size() - n)) == 0) most = n;
    }
  }
  return most;
}

// A choice that grows.
struct Growing {
  size_t choice = 0;
  std::unique_ptr<Detokenizer> detokenizer;
  std::string held;                    // text that may yet become a stop
  std::vector<TokenLogprob> logprobs;  // not emitted yet
  int64_t characters_before = 0;       // of the text, prompt included where it is echoed
  int64_t tokens = 0;
  int32_t last = 0;
  const char* finish_reason = nullptr;
};

}  // namespace

std::string token_text(const Tokenizer& tokenizer, int32_t token) {
  if (token == tokenizer.eod_id() && !tokenizer.is_text(token)) return std::string(kEndOfText);
  std::string text = tokenizer.decode(std::span(&token, 1));
  if (!first_invalid_utf8(text)) return text;
  std::string bytes = "bytes:";
  for (const char c : text) bytes += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return bytes;
}

// The choices of one prompt: read once, then they grow side by side.
class Completer::Prompt {
 public:
  Prompt(Completer& completer, const CompletionRequest& request, size_t number, const Emit& emit)
      : decoder_(completer.decoder_),
        tokenizer_(completer.served_.tokenizer),
        vocabulary_(completer.served_.model.config().vocab_size),
        request_(request),
        prompt_(request.prompts[number]),
        emit_(emit),
        sampler_(sampling(completer, request), vocabulary_) {
    for (size_t i = 0; i < static_cast<size_t>(request.n); ++i) {
      choices_.push_back({.choice = number * static_cast<size_t>(request.n) + i,
                          .detokenizer = tokenizer_.new_detokenizer(),
                          .held = {},
                          .logprobs = {}});
    }
  }

  // False where nobody wants more.
  bool run() {
    read_prompt();
    if (request_.echo) echo();
    for (size_t i = 1; i < choices_.size(); ++i) decoder_.copy(0, static_cast<int64_t>(i));
    if (request_.max_tokens == 0) {
      for (Growing& choice : choices_) choice.finish_reason = "length", emit(choice);
    } else {
      const Tensor logits(first_logits_.data(), DType::f64, {1, std::ssize(first_logits_)});
      const auto predictions = infer::next_tokens(logits, vocabulary_);
      for (Growing& choice : choices_) append(choice, logits, 0, predictions[0]);
    }
    while (wanted_ && step()) {
    }
    return wanted_;
  }
  int64_t completion_tokens() const {
    int64_t tokens = 0;
    for (const Growing& choice : choices_) tokens += choice.tokens;
    return tokens;
  }

 private:
  static infer::SamplingOptions sampling(const Completer& completer, const CompletionRequest& request) {
    return {.max_new_tokens = request.max_tokens,
            .temperature = request.temperature,
            .top_k = request.top_k,
            .top_p = request.top_p,
            .seed = request.seed,
            .stop_token = completer.served_.tokenizer.eod_id(),
            .allowed = completer.allowed_};
  }

  TokenLogprob logprob_of(int32_t token, const Tensor& logits, size_t row,
                          const infer::NextToken& prediction) const {
    TokenLogprob result{token_text(tokenizer_, token), prediction.log_probability(logits, row, token), {}, 0};
    std::vector<int32_t> order = infer::likeliest_tokens(logits, row, vocabulary_, *request_.logprobs);
    if (std::find(order.begin(), order.end(), token) == order.end()) order.push_back(token);
    for (const int32_t id : order) {
      result.alternatives.emplace_back(token_text(tokenizer_, id),
                                       prediction.log_probability(logits, row, id));
    }
    return result;
  }

  void read_prompt() {
    const auto n = static_cast<int32_t>(prompt_.size());
    const bool all = request_.echo && request_.logprobs;
    const std::vector<int32_t> sequence(prompt_.size(), 0);
    std::vector<int32_t> wanted;
    for (int32_t row = all ? 0 : n - 1; row < n; ++row) wanted.push_back(row);
    if (all) prompt_logprobs_.push_back({token_text(tokenizer_, prompt_[0]), std::nullopt, {}, 0});
    decoder_.truncate(0, 0);
    decoder_.read(sequence, prompt_, wanted, [&](size_t first, const Tensor& logits) {
      const auto predictions = infer::next_tokens(logits, vocabulary_);
      for (size_t i = 0; i < predictions.size(); ++i) {
        const auto row = static_cast<size_t>(wanted[first + i]);
        if (row + 1 < prompt_.size()) {
          prompt_logprobs_.push_back(logprob_of(prompt_[row + 1], logits, i, predictions[i]));
        } else {
          for (int64_t v = 0; v < vocabulary_; ++v) {
            first_logits_.push_back(infer::logit_at(logits, i, static_cast<int32_t>(v)));
          }
        }
      }
    });
  }

  void echo() {
    const auto detokenizer = tokenizer_.new_detokenizer();
    std::string text;
    for (size_t i = 0; i < prompt_.size(); ++i) {
      if (i < prompt_logprobs_.size()) prompt_logprobs_[i].text_offset = characters(text);
      text += detokenizer->add(prompt_[i]);
    }
    text += detokenizer->finish();
    for (Growing& choice : choices_) {
      choice.characters_before = characters(text);
      wanted_ = wanted_ && emit_({choice.choice, text, prompt_logprobs_, nullptr});
    }
  }

  // One more token for every choice that still grows; false where none does.
  bool step() {
    std::vector<int32_t> sequences, tokens, rows;
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (choices_[i].finish_reason != nullptr) continue;
      rows.push_back(static_cast<int32_t>(rows.size()));
      sequences.push_back(static_cast<int32_t>(i));
      tokens.push_back(choices_[i].last);
    }
    if (tokens.empty()) return false;
    decoder_.read(sequences, tokens, rows, [&](size_t first, const Tensor& logits) {
      const auto predictions = infer::next_tokens(logits, vocabulary_);
      for (size_t i = 0; i < predictions.size(); ++i) {
        append(choices_[static_cast<size_t>(sequences[first + i])], logits, i, predictions[i]);
      }
    });
    return true;
  }

  int32_t draw(const Growing& choice, const Tensor& logits, size_t row) {
    int32_t token = 0;
    visit_float_dtype(logits.dtype(), [&]<class T>() {
      if constexpr (!std::is_same_v<T, bf16>) {
        token = sampler_(logits.data<T>() + static_cast<int64_t>(row) * logits.dim(1),
                         std::ssize(prompt_) + choice.tokens, static_cast<int64_t>(choice.choice));
      }
    });
    return token;
  }

  void append(Growing& choice, const Tensor& logits, size_t row, const infer::NextToken& prediction) {
    if (choice.tokens == 0) {
      for (const int32_t id : prompt_) choice.detokenizer->add(id);  // what comes is a part of the whole text
    }
    choice.last = draw(choice, logits, row);
    ++choice.tokens;
    if (request_.logprobs) {
      choice.logprobs.push_back(logprob_of(choice.last, logits, row, prediction));
      choice.logprobs.back().text_offset = choice.characters_before + characters(choice.held);
    }
    const bool ends = choice.last == tokenizer_.eod_id(), full = choice.tokens == request_.max_tokens;
    const size_t searched = choice.held.size();
    if (!ends) choice.held += choice.detokenizer->add(choice.last);
    if (ends || full) choice.held += choice.detokenizer->finish();
    if (ends || cut_at_stop(choice, searched)) {
      choice.finish_reason = "stop";
    } else if (full) {
      choice.finish_reason = "length";
    }
    emit(choice);
  }

  // Drops the text from the first stop on. What was held back was searched already, but for stops that go on.
  bool cut_at_stop(Growing& choice, size_t searched) const {
    size_t cut = std::string::npos;
    for (const std::string& stop : request_.stop) {
      cut = std::min(cut, choice.held.find(stop, searched - std::min(searched, stop.size() - 1)));
    }
    if (cut == std::string::npos) return false;
    choice.held.resize(cut);
    return true;
  }

  void emit(Growing& choice) {
    const bool last = choice.finish_reason != nullptr;
    const size_t certain = choice.held.size() - (last ? 0 : may_become_stop(choice.held, request_.stop));
    if (!last && certain == 0 && choice.logprobs.empty()) return;
    Piece piece{choice.choice, choice.held.substr(0, certain), std::move(choice.logprobs),
                choice.finish_reason};
    choice.held.erase(0, certain);
    choice.characters_before += characters(piece.text);
    choice.logprobs.clear();
    wanted_ = wanted_ && emit_(piece);
  }

  infer::Decoder& decoder_;
  const Tokenizer& tokenizer_;
  int64_t vocabulary_;
  const CompletionRequest& request_;
  const std::vector<int32_t>& prompt_;
  const Emit& emit_;
  infer::Sampler sampler_;
  std::vector<Growing> choices_;               // choice i is the decoder's sequence i
  std::vector<TokenLogprob> prompt_logprobs_;  // of every token, where they are echoed
  std::vector<double> first_logits_;           // after the prompt
  bool wanted_ = true;
};

// strict: what a token's neighbours are must not change its score.
Completer::Completer(const Served& served)
    : served_(served),
      decoder_(served.model, kMostChoices, served.length, 512, Reproducible::strict),
      allowed_(infer::allowed_tokens(served.model.config().vocab_size, served.tokenizer.eod_id(),
                                     [&](int32_t id) { return served.tokenizer.is_text(id); })) {}

Usage Completer::complete(const CompletionRequest& request, const Emit& emit) {
  Usage usage;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    Prompt prompt(*this, request, i, emit);
    const bool wanted = prompt.run();
    usage.prompt_tokens += std::ssize(request.prompts[i]);
    usage.completion_tokens += prompt.completion_tokens();
    if (!wanted) break;
  }
  return usage;
}

}  // namespace ziggurat::serve
