#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

#include <fmt/format.h>

#include "serve/backlog.h"
#include "serve/model_thread.h"
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/utf8_text.h>
#include <ziggurat/io/untrusted_json.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Of events that wait for one client. What a usual request streams is far less; a client that lets as much
// pile up has stopped reading.
constexpr size_t kMostBacklogBytes = size_t{16} << 20;

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// As the value of a label in /metrics.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
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
      out += fmt::format("ziggurat_requests_total{{path=\"{}\",code=\"{}\"}} {}\n", escaped(key.first),
                         key.second, count);
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
  try {
    return parse_untrusted_json(body);
  } catch (const JsonFault& fault) {
    throw ApiError(400, std::string("the body is no valid JSON in UTF-8: ") + fault.what(), {},
                   "invalid_json");
  }
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

  using ClientThere = std::function<bool()>;

  Reply route(const std::string& method, const std::string& path, const std::string& body,
              const ClientThere& client_there) {
    const auto get = [&](const std::string& known) { return path == known && require(method, "GET"); };
    const auto post = [&](const std::string& known) { return path == known && require(method, "POST"); };
    if (post("/v1/completions")) {
      return completions(parse_completion(parse_body(body), served), client_there);
    }
    if (get("/v1/models")) return ok({{"object", "list"}, {"data", ordered_json::array({model_json()})}});
    if (get("/v1/models/" + served.name)) return ok(model_json());
    if (get("/health")) return ok({{"status", "ok"}});
    if (get("/metrics"))
      return {.type = "text/plain; version=0.0.4", .body = counters.text(thread.waiting())};
    if (get("/tokenizer_info"))
      return ok({{"eos_token", eos_text()}, {"bos_token", nullptr}, {"pad_token", nullptr}});
    if (post("/tokenize")) return tokenize(parse_body(body));
    if (post("/detokenize")) return detokenize(parse_body(body));
    throw ApiError(404, "no such path: " + with_replacement_characters(path.substr(0, 200)) +
                            "; known are /v1/completions, /v1/models, /v1/models/" + served.name +
                            ", /health, /metrics, /tokenizer_info, /tokenize and /detokenize");
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

  // On the model's thread.
  Usage complete(const CompletionRequest& request, const Completer::Emit& emit) {
    const Timer timer;
    const Usage usage = completer.complete(request, emit);
    counters.count_completion(usage, timer.seconds());
    return usage;
  }

  Reply completions(const CompletionRequest& request, const ClientThere& client_there) {
    if (request.stream) return stream(request);
    Backlog backlog(0);  // of nothing: it tells the model that the client left, and its thread the end
    std::vector<Choice> choices(request.prompts.size() * static_cast<size_t>(request.n));
    const auto add = [&](const Piece& piece) {
      Choice& choice = choices[piece.choice];
      choice.text += piece.text;
      choice.logprobs.insert(choice.logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
      choice.finish_reason = piece.finish_reason;
      return !backlog.gone();
    };
    Usage usage;
    const auto work = [&] {
      const Backlog::End end(backlog);
      if (!backlog.gone()) usage = complete(request, add);
    };
    thread.run(work, [&] {
      while (backlog.take()) {
        if (!client_there()) backlog.leave();
      }
    });
    if (backlog.gone()) throw ApiError(499, "the client left", {}, "client_left");
    ordered_json root = envelope();
    root["choices"] = ordered_json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      root["choices"].push_back(choice_json(i, choices[i].text, choices[i].logprobs, choices[i].finish_reason,
                                            request.logprobs.has_value()));
    }
    root["usage"] = usage_json(usage);
    return ok(root);
  }

  // Server-sent events. The model writes them to a backlog, and the connection's thread sends them on: a
  // client that reads slowly holds up nobody else, and one that goes is noticed at once, also while it waits.
  Reply stream(const CompletionRequest& request) {
    return {.type = "text/event-stream",
            .stream = [this, request, base = envelope()](const Reply::Write& write) {
              const auto text_of = [](const ordered_json& event) { return "data: " + dump(event) + "\n\n"; };
              Backlog backlog(kMostBacklogBytes);
              const auto send_on = [&] {
                bool open = true;
                while (const auto part = backlog.take()) {
                  if (open && !write(*part)) open = false, backlog.leave();
                }
              };
              try {
                thread.run([&] { fill(backlog, request, base, text_of); }, send_on);
                if (backlog.too_slow())
                  throw ApiError(503, "the stream was read too slowly", {}, "overloaded");
              } catch (const std::exception& error) {  // the status is sent already
                const auto* known = dynamic_cast<const ApiError*>(&error);
                write(text_of(known != nullptr ? known->json() : ApiError(500, error.what()).json()));
              }
            }};
  }

  void fill(Backlog& backlog, const CompletionRequest& request, const ordered_json& base,
            const std::function<std::string(const ordered_json&)>& text_of) {
    const Backlog::End end(backlog);
    if (backlog.gone()) return;
    const Usage usage = complete(request, [&](const Piece& piece) {
      ordered_json event = base;
      event["choices"] = ordered_json::array({choice_json(
          piece.choice, piece.text, piece.logprobs, piece.finish_reason, request.logprobs.has_value())});
      return backlog.put(text_of(event));
    });
    if (request.stream_usage) {
      ordered_json event = base;
      event["choices"] = ordered_json::array();
      event["usage"] = usage_json(usage);
      backlog.put(text_of(event));
    }
    backlog.put("data: [DONE]\n\n");
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

Reply Api::answer(const std::string& method, const std::string& path, const std::string& body,
                  const std::function<bool()>& client_there) {
  Reply reply;
  try {
    reply = impl_->route(method, path, body, client_there);
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
