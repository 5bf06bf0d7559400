#include <algorithm>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ziggurat/data/utf8_text.h>
#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& field, const std::string& expected, const json& got) {
  std::string shown = got.dump(-1, ' ', false, json::error_handler_t::replace);
  if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
  throw ApiError(400,
                 fmt::format("{}: expected {}, got {}", field, expected, with_replacement_characters(shown)),
                 field);
}

// The fields of a request, each asked for once; a null is as good as none.
class Fields {
 public:
  explicit Fields(const json& body) : body_(body) {
    if (!body.is_object()) throw ApiError(400, "expected a JSON object");
  }

  const json* find(const std::string& name) {
    asked_.push_back(name);
    const auto found = body_.find(name);
    return found == body_.end() || found->is_null() ? nullptr : &*found;
  }

  int64_t integer(const std::string& name, int64_t value, int64_t least, int64_t most) {
    if (const json* given = find(name)) value = integer_in(name, *given, least, most);
    return value;
  }
  double number(const std::string& name, double value, double least, double most) {
    const json* given = find(name);
    if (given == nullptr) return value;
    const std::string expected = fmt::format("a number from {} to {}", least, most);
    if (!given->is_number()) refuse(name, expected, *given);
    value = given->get<double>();
    if (!(least <= value && value <= most)) refuse(name, expected, *given);
    return value;
  }
  bool flag(const std::string& name) {
    const json* given = find(name);
    if (given == nullptr) return false;
    if (!given->is_boolean()) refuse(name, "true or false", *given);
    return given->get<bool>();
  }

  static int64_t integer_in(const std::string& name, const json& given, int64_t least, int64_t most) {
    const std::string expected = fmt::format("a whole number from {} to {}", least, most);
    if (!given.is_number_integer()) refuse(name, expected, given);
    const bool huge = given.is_number_unsigned() && given.get<uint64_t>() > uint64_t{INT64_MAX};
    const int64_t value = huge ? INT64_MAX : given.get<int64_t>();
    if (huge || value < least || value > most) refuse(name, expected, given);
    return value;
  }

  // What OpenAI has and this server has not: only the value that changes nothing.
  void only(const std::string& name, const json& neutral) {
    const json* given = find(name);
    if (given != nullptr && *given != neutral)
      refuse(name, neutral.dump() + " (no other is supported)", *given);
  }

  void refuse_the_rest() const {
    for (const auto& [name, value] : body_.items()) {
      if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
      const std::string shown = with_replacement_characters(name.substr(0, 80));
      throw ApiError(400, fmt::format("unknown field {}; known are {}", shown, fmt::join(asked_, ", ")),
                     shown);
    }
  }

 private:
  const json& body_;
  std::vector<std::string> asked_;
};

std::vector<int32_t> encode_prompt(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.encode(text);
  if (ids.empty() && tokenizer.eod_id() >= 0) ids.push_back(tokenizer.eod_id());  // a new text
  return ids;
}

std::vector<int32_t> read_ids(const json& ids, int64_t vocabulary) {
  std::vector<int32_t> prompt;
  for (const json& id : ids) {
    prompt.push_back(static_cast<int32_t>(Fields::integer_in("prompt", id, 0, vocabulary - 1)));
  }
  return prompt;
}

std::vector<std::vector<int32_t>> read_prompts(const json* given, const Served& served) {
  const char* expected = "a text, a list of token ids, or a list of these";
  if (given == nullptr) refuse("prompt", expected, json());
  const int64_t vocabulary = served.model.config().vocab_size;
  if (given->is_string()) return {encode_prompt(given->get<std::string>(), served.tokenizer)};
  if (!given->is_array() || given->empty()) refuse("prompt", expected, *given);
  if (given->front().is_number()) return {read_ids(*given, vocabulary)};
  if (std::ssize(*given) > kMostPrompts) {
    throw ApiError(400, fmt::format("prompt: at most {} prompts, got {}", kMostPrompts, given->size()),
                   "prompt");
  }
  std::vector<std::vector<int32_t>> prompts;
  for (const json& prompt : *given) {
    if (prompt.is_string()) {
      prompts.push_back(encode_prompt(prompt.get<std::string>(), served.tokenizer));
    } else if (prompt.is_array()) {
      prompts.push_back(read_ids(prompt, vocabulary));
    } else {
      refuse("prompt", expected, *given);
    }
  }
  return prompts;
}

std::vector<std::string> read_stops(const json* given) {
  if (given == nullptr) return {};
  const std::string expected =
      fmt::format("a text or up to {} of them, 1 to {} bytes each", kMostStops, kLongestStop);
  std::vector<std::string> stops;
  const json list = given->is_string() ? json::array({*given}) : *given;
  if (!list.is_array() || list.size() > kMostStops) refuse("stop", expected, *given);
  for (const json& stop : list) {
    if (!stop.is_string()) refuse("stop", expected, *given);
    const auto& text = stop.get_ref<const std::string&>();
    if (text.empty() || text.size() > kLongestStop) refuse("stop", expected, *given);
    stops.push_back(text);
  }
  return stops;
}

uint64_t any_seed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

void check_lengths(const CompletionRequest& request, const Served& served) {
  for (const std::vector<int32_t>& prompt : request.prompts) {
    if (prompt.empty()) throw ApiError(400, "prompt: expected at least one token", "prompt");
    if (std::ssize(prompt) + request.max_tokens <= served.length) continue;
    throw ApiError(
        400,
        fmt::format("the model sees {} tokens at most, but {} were asked for: {} in the prompt and {} to "
                    "write (max_tokens). Shorten one of them",
                    served.length, std::ssize(prompt) + request.max_tokens, prompt.size(),
                    request.max_tokens),
        "prompt", "context_length_exceeded");
  }
}

}  // namespace

nlohmann::ordered_json ApiError::json() const {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  const char* type = status >= 500   ? "server_error"
                     : status == 404 ? "not_found_error"
                                     : "invalid_request_error";
  return {{"error",
           {{"message", what()},
            {"type", type},
            {"param", text_or_null(parameter)},
            {"code", text_or_null(code)}}}};
}

// A request that names none gets the one that there is.
void check_model(const std::string& name, const Served& served) {
  if (name == served.name) return;
  throw ApiError(404,
                 fmt::format("model: {} is not served here; leave the field out, or ask for {}",
                             with_replacement_characters(name.substr(0, 80)), served.name),
                 "model", "model_not_found");
}

CompletionRequest parse_completion(const json& body, const Served& served) {
  Fields fields(body);
  for (const char* name : {"model", "user"}) {
    const json* text = fields.find(name);
    if (text != nullptr && !text->is_string()) refuse(name, "a text", *text);
  }
  if (const json* model = fields.find("model")) check_model(model->get<std::string>(), served);
  CompletionRequest request;
  request.prompts = read_prompts(fields.find("prompt"), served);
  request.max_tokens = fields.integer("max_tokens", request.max_tokens, 0, INT32_MAX);
  request.n = fields.integer("n", request.n, 1, kMostChoices);
  fields.only("best_of", request.n);
  infer::SamplingOptions& sampling = request.sampling;
  sampling.temperature = fields.number("temperature", sampling.temperature, 0, 2);
  sampling.top_p = fields.number("top_p", sampling.top_p, 1e-6, 1);
  sampling.top_k = fields.integer("top_k", sampling.top_k, 0, INT32_MAX);
  sampling.repetition_penalty = fields.number("repetition_penalty", sampling.repetition_penalty, 0.01, 100);
  if (const json* given = fields.find("logprobs")) {
    request.logprobs = Fields::integer_in("logprobs", *given, 0, kMostLogprobs);
  }
  request.echo = fields.flag("echo");
  request.stream = fields.flag("stream");
  if (const json* options = fields.find("stream_options")) {
    Fields inner(*options);
    request.stream_usage = inner.flag("include_usage");
    inner.refuse_the_rest();
  }
  request.stop = read_stops(fields.find("stop"));
  const json* seed = fields.find("seed");
  sampling.seed = seed == nullptr
                      ? any_seed()
                      : static_cast<uint64_t>(Fields::integer_in("seed", *seed, INT64_MIN, INT64_MAX));
  for (const char* name : {"presence_penalty", "frequency_penalty"}) fields.only(name, 0);
  fields.only("logit_bias", json::object());
  fields.only("suffix", "");
  fields.refuse_the_rest();
  check_lengths(request, served);
  return request;
}

}  // namespace ziggurat::serve
