// Text completions as OpenAI's /v1/completions has them, by one model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/data/tokenizer.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/infer/sampler.h>
#include <ziggurat/model/gpt.h>

namespace ziggurat::serve {

// An answer other than 200: what the client did wrong, or (5xx) what happened here.
class ApiError : public std::runtime_error {
 public:
  ApiError(int http_status, const std::string& message, std::string field = {}, std::string name = {},
           int64_t wait = 0)
      : std::runtime_error(message),
        status(http_status),
        parameter(std::move(field)),
        code(std::move(name)),
        retry_after(wait) {}
  // {"error": {"message", "type", "param", "code"}}
  nlohmann::ordered_json json() const;

  int status;
  std::string parameter;  // the field that is wrong; empty: none
  std::string code;       // for programs; empty: none
  int64_t retry_after;    // seconds; 0: not told
};

struct Served {
  const model::Gpt& model;
  const Tokenizer& tokenizer;
  std::string name;    // of the model, in answers
  int64_t length = 0;  // tokens of prompt and completion together
  // How many texts are written at once, and the tokens whose keys and values are kept for them; 0: as
  // infer::EngineOptions.
  int64_t texts = 64, cache_tokens = 0;
  Communicator* world = nullptr;  // of the ranks that write together, each with these; null: this one alone
};

// Of the engine that writes for it: the other ranks make theirs by these, and follow().
infer::EngineOptions engine_options(const Served& served);

inline constexpr int64_t kMostChoices = 16;                    // n
inline constexpr int64_t kMostPrompts = 256;                   // of a request
inline constexpr int64_t kMostLogprobs = 20;                   // alternatives of a token
inline constexpr size_t kMostStops = 16, kLongestStop = 1024;  // bytes

struct CompletionRequest {
  std::vector<std::vector<int32_t>> prompts;
  int64_t max_tokens = 16, n = 1;
  infer::SamplingOptions sampling = {.temperature = 1, .top_k = 0};
  std::optional<int64_t> logprobs;  // alternatives of each token
  bool echo = false, stream = false, stream_usage = false;
  std::vector<std::string> stop;
};

// Throws ApiError(400) naming the field for what is missing, unknown, of another type or out of range, and
// for prompts that are too long together with max_tokens; ApiError(404) for another model than this one.
CompletionRequest parse_completion(const nlohmann::json& body, const Served& served);

struct TokenLogprob {
  std::string token;
  std::optional<double> logprob;                             // nats; none for the first token of a text
  std::vector<std::pair<std::string, double>> alternatives;  // the likeliest first; with the token itself
  int64_t text_offset = 0;                                   // characters of the text before it
};

// A part of a choice's text.
struct Piece {
  size_t choice = 0;  // prompt * n + sample
  std::string text;
  std::vector<TokenLogprob> logprobs;
  const char* finish_reason = nullptr;  // "stop" or "length" with the last piece
};

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
};

// The token's text; for one that is no UTF-8 by itself, "bytes:\x.." as OpenAI names it.
std::string token_text(const Tokenizer& tokenizer, int32_t token);

}  // namespace ziggurat::serve
