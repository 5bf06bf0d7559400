#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

#include <fmt/format.h>

#include "serve/model_thread.h"
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/utf8_text.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Reply reply_of(const ApiError& error) { return {.status = error.status, .body = dump(error.json())}; }

// For Prometheus.
class Counters {
 public:
  void count_request(const std::string& path, int status) {
    const std::lock_guard lock(mutex_);
    ++requests_[{path, status}];
  }
  void count_completion(const Usage& usage, double seconds) {
    const std::lock_guard lock(mutex_);
    prompt_tokens_ += usage.prompt_tokens, completion_tokens_ += usage.completion_tokens;
    seconds_ += seconds, ++completions_;
  }
  std::string text(int64_t waiting) const {
    const std::lock_guard lock(mutex_);
    std::string out =
        "# HELP ziggurat_requests_total Requests answered.\n# TYPE ziggurat_requests_total counter\n";
    for (const auto& [key, count] : requests_) {
      out += fmt::format("ziggurat_requests_total{{path=\"{}\",code=\"{}\"}} {}\n", key.first, key.second,
                         count);
    }
    const auto add = [&](const char* name, const char* type, const char* help, auto value) {
      out += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n{0} {3}\n", name, type, help, value);
    };
    add("ziggurat_prompt_tokens_total", "counter", "Tokens of prompts read.", prompt_tokens_);
    add("ziggurat_completion_tokens_total", "counter", "Tokens written.", completion_tokens_);
    out += fmt::format(
        "# HELP ziggurat_completion_seconds Time that the model worked on a request.\n"
        "# TYPE ziggurat_completion_seconds summary\n"
        "ziggurat_completion_seconds_sum {}\nziggurat_completion_seconds_count {}\n",
        seconds_, completions_);
    add("ziggurat_requests_waiting", "gauge", "Requests that wait for the model, the one under way included.",
        waiting);
    return out;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  int64_t prompt_tokens_ = 0, completion_tokens_ = 0, completions_ = 0;
  double seconds_ = 0;
};

json parse_body(const std::string& body) {
  json value = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) throw ApiError(400, "the body is no valid JSON in UTF-8", {}, "invalid_json");
  return value;
}

struct Choice {
  std::string text;
  std::vector<TokenLogprob> logprobs;
  const char* finish_reason = nullptr;
};

ordered_json json_of(const std::vector<TokenLogprob>& logprobs) {
  ordered_json tokens = ordered_json::array(), values = tokens, alternatives = tokens, offsets = tokens;
  for (const TokenLogprob& token : logprobs) {
    tokens.push_back(token.token);
    values.push_back(token.logprob ? ordered_json(*token.logprob) : ordered_json());
    ordered_json others;  // null for the first token of a text
    for (const auto& [text, logprob] : token.alternatives) {
      if (!others.contains(text)) others[text] = logprob;  // the likelier of two that read alike
    }
    alternatives.push_back(others);
    offsets.push_back(token.text_offset);
  }
  return {{"tokens", tokens},
          {"token_logprobs", values},
          {"top_logprobs", alternatives},
          {"text_offset", offsets}};
}

ordered_json choice_json(size_t index, const std::string& text, const std::vector<TokenLogprob>& logprobs,
                         const char* finish_reason, bool with_logprobs) {
  return {{"index", index},
          {"text", text},
          {"logprobs", with_logprobs ? json_of(logprobs) : ordered_json()},
          {"finish_reason", finish_reason == nullptr ? ordered_json() : ordered_json(finish_reason)}};
}

ordered_json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

}  // namespace

struct Api::Impl {
  Impl(const Served& of, int model_threads, int64_t most_waiting)
      : served(of), completer(of), thread(model_threads, most_waiting) {}

  Reply route(const std::string& method, const std::string& path, const std::string& body) {
    const auto get = [&](const std::string& known) { return path == known && require(method, "GET"); };
    const auto post = [&](const std::string& known) { return path == known && require(method, "POST"); };
    if (post("/v1/completions")) return completions(parse_completion(parse_body(body), served));
    if (get("/v1/models")) return ok({{"object", "list"}, {"data", ordered_json::array({model_json()})}});
    if (get("/v1/models/" + served.name)) return ok(model_json());
    if (get("/health")) return ok({{"status", "ok"}});
    if (get("/metrics"))
      return {.type = "text/plain; version=0.0.4", .body = counters.text(thread.waiting())};
    if (get("/tokenizer_info"))
      return ok({{"eos_token", eos_text()}, {"bos_token", nullptr}, {"pad_token", nullptr}});
    if (post("/tokenize")) return tokenize(parse_body(body));
    if (post("/detokenize")) return detokenize(parse_body(body));
    throw ApiError(404, "no such path: " + with_replacement_characters(path.substr(0, 200)));
  }

  static bool require(const std::string& method, const std::string& expected) {
    if (method == expected || (method == "HEAD" && expected == "GET")) return true;
    throw ApiError(405, "expected " + expected + ", got " + method);
  }

  static Reply ok(const ordered_json& value) { return {.body = dump(value)}; }

  ordered_json model_json() const {
    return {{"id", served.name},
            {"object", "model"},
            {"created", started},
            {"owned_by", "ziggurat"},
            {"max_model_len", served.length}};
  }

  ordered_json eos_text() const {
    const int32_t eod = served.tokenizer.eod_id();
    return eod < 0 ? ordered_json() : ordered_json(token_text(served.tokenizer, eod));
  }

  Reply tokenize(const json& body) const {
    const json prompt = body.is_object() ? body.value("prompt", json()) : json();
    if (!prompt.is_string()) throw ApiError(400, "prompt: expected a text", "prompt");
    const auto& text = prompt.get_ref<const std::string&>();
    const std::vector<int32_t> ids =
        eos_text() == text ? std::vector<int32_t>{served.tokenizer.eod_id()} : served.tokenizer.encode(text);
    return ok({{"count", ids.size()}, {"max_model_len", served.length}, {"tokens", ids}});
  }

  Reply detokenize(const json& body) const {
    const json tokens = body.is_object() ? body.value("tokens", json()) : json();
    std::vector<int32_t> ids;
    for (const json& id : tokens.is_array() ? tokens : json::array({nullptr})) {
      const bool good = id.is_number_integer() && id >= 0 && id < served.tokenizer.vocab_size();
      if (!good) {
        throw ApiError(400,
                       fmt::format("tokens: expected a list of ids below {}", served.tokenizer.vocab_size()),
                       "tokens");
      }
      ids.push_back(id.get<int32_t>());
    }
    return ok({{"prompt", served.tokenizer.decode(ids)}});
  }

  ordered_json envelope() {
    return {{"id", fmt::format("cmpl-{}-{}", started, ++completions_begun)},
            {"object", "text_completion"},
            {"created", now()},
            {"model", served.name}};
  }

  Usage run(const CompletionRequest& request, const Completer::Emit& emit) {
    Usage usage;
    thread.run([&] {
      const Timer timer;
      usage = completer.complete(request, emit);
      counters.count_completion(usage, timer.seconds());
    });
    return usage;
  }

  Reply completions(const CompletionRequest& request) {
    if (request.stream) return stream(request);
    std::vector<Choice> choices(request.prompts.size() * static_cast<size_t>(request.n));
    const Usage usage = run(request, [&](const Piece& piece) {
      Choice& choice = choices[piece.choice];
      choice.text += piece.text;
      choice.logprobs.insert(choice.logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
      choice.finish_reason = piece.finish_reason;
      return true;
    });
    ordered_json root = envelope();
    root["choices"] = ordered_json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      root["choices"].push_back(choice_json(i, choices[i].text, choices[i].logprobs, choices[i].finish_reason,
                                            request.logprobs.has_value()));
    }
    root["usage"] = usage_json(usage);
    return ok(root);
  }

  // Server-sent events.
  Reply stream(const CompletionRequest& request) {
    return {
        .type = "text/event-stream", .stream = [this, request, base = envelope()](const Reply::Write& write) {
          const auto send = [&](const ordered_json& event) { return write("data: " + dump(event) + "\n\n"); };
          try {
            const Usage usage = run(request, [&](const Piece& piece) {
              ordered_json event = base;
              event["choices"] =
                  ordered_json::array({choice_json(piece.choice, piece.text, piece.logprobs,
                                                   piece.finish_reason, request.logprobs.has_value())});
              return send(event);
            });
            if (request.stream_usage) {
              ordered_json event = base;
              event["choices"] = ordered_json::array();
              event["usage"] = usage_json(usage);
              send(event);
            }
            write("data: [DONE]\n\n");
          } catch (const std::exception& error) {  // the status is sent already
            const auto* known = dynamic_cast<const ApiError*>(&error);
            send(known != nullptr ? known->json() : ApiError(500, error.what()).json());
          }
        }};
  }

  const Served served;
  const int64_t started = now();
  std::atomic<int64_t> completions_begun = 0;
  Counters counters;
  Completer completer;
  ModelThread thread;
};

Api::Api(const Served& served, int model_threads, int64_t most_waiting)
    : impl_(std::make_unique<Impl>(served, model_threads, most_waiting)) {}
Api::~Api() = default;

Reply Api::answer(const std::string& method, const std::string& path, const std::string& body) {
  Reply reply;
  try {
    reply = impl_->route(method, path, body);
  } catch (const ApiError& error) {
    reply = reply_of(error);
  } catch (const std::exception& error) {
    warn("{} {}: {}", method, path, error.what());
    reply = reply_of(ApiError(500, error.what()));
  }
  impl_->counters.count_request(reply.status == 404 ? "other" : path, reply.status);
  return reply;
}

Reply Api::refusal(int status) {
  const char* why = status == 413   ? "the body is too large"
                    : status == 414 ? "the path is too long"
                    : status == 416 ? "ranges are not served"
                                    : "this is no request that can be read";
  return reply_of(ApiError(status, why));
}

}  // namespace ziggurat::serve
