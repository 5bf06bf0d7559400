#include <atomic>
#include <chrono>

#include <fmt/format.h>

#include "serve/backlog.h"
#include "serve/completion.h"
#include "serve/metrics.h"
#include "serve/model_thread.h"
#include <ziggurat/core/log.h>
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

Reply reply_of(const ApiError& error) {
  return {.status = error.status, .body = dump(error.json()), .retry_after = error.retry_after};
}

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
  Impl(const Served& of, const ApiOptions& options)
      : served(of),
        metrics(options.log),
        thread(of, {options.model_threads, options.most_requests, options.most_seconds, options.on_lost}) {}

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
    if (get("/metrics")) return {.type = "text/plain; version=0.0.4", .body = metrics.text(thread.state())};
    if (get("/tokenizer_info"))
      return ok({{"eos_token", eos_text()}, {"bos_token", nullptr}, {"pad_token", nullptr}});
    if (post("/tokenize")) return tokenize(parse_body(body));
    if (post("/detokenize")) return detokenize(parse_body(body));
    throw ApiError(404, "no such path: " + with_replacement_characters(path.substr(0, 200)) +
                            "; known are /v1/completions, /v1/models, /v1/models/" + served.name +
                            ", /health, /metrics, /tokenizer_info, /tokenize and /detokenize");
  }

  // Of a path in the metrics: who asks for any other makes no label of his own.
  std::string label_of(const std::string& path) const {
    const std::string model = "/v1/models/" + served.name;
    for (const std::string_view known : {"/v1/completions", "/v1/models", "/health", "/metrics",
                                         "/tokenizer_info", "/tokenize", "/detokenize", model.c_str()}) {
      if (path == known) return path;
    }
    return "other";
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

  // A completion that the model works on, as long as somebody holds this.
  struct Work {
    std::string id;
    std::shared_ptr<Backlog> backlog;
    std::shared_ptr<ModelThread::Job> job;
    ~Work() { backlog->leave(); }
  };
  std::shared_ptr<Work> begin(const std::string& id, const CompletionRequest& request,
                              const std::shared_ptr<Backlog>& backlog, const Completion::Emit& emit) {
    auto completion = std::make_unique<Completion>(served, request, emit);
    return std::shared_ptr<Work>(new Work{id, backlog, thread.begin(std::move(completion), backlog)});
  }

  // Of work whose backlog has ended. Throws what ended it early.
  Usage result_of(const Work& work) {
    int status = 200;
    std::exception_ptr error;
    try {
      work.job->check();
      if (work.backlog->gone()) throw ApiError(499, "the client left", {}, "client_left");
      if (work.backlog->too_slow()) throw ApiError(503, "the stream was read too slowly", {}, "overloaded");
    } catch (const std::exception& fault) {
      const auto* known = dynamic_cast<const ApiError*>(&fault);
      status = known == nullptr ? 500 : known->status;
      error = std::current_exception();
    }
    const Usage usage = work.job->completion().usage();
    metrics.count_completion(work.id, status, usage, work.job->times());
    if (error) std::rethrow_exception(error);
    return usage;
  }

  Reply completions(const CompletionRequest& request, const ClientThere& client_there) {
    if (request.stream) return stream(request);
    ordered_json root = envelope();
    std::vector<Choice> choices(request.prompts.size() * static_cast<size_t>(request.n));
    // Of nothing: it tells the model that the client left, and this thread the end.
    const auto backlog = std::make_shared<Backlog>(0);
    const auto work = begin(root["id"], request, backlog, [&](const Piece& piece) {
      Choice& choice = choices[piece.choice];
      choice.text += piece.text;
      choice.logprobs.insert(choice.logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
      choice.finish_reason = piece.finish_reason;
      return !backlog->gone();
    });
    while (backlog->take()) {
      if (!client_there()) backlog->leave();
    }
    const Usage usage = result_of(*work);
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
    const auto text_of = [](const ordered_json& event) { return "data: " + dump(event) + "\n\n"; };
    const ordered_json base = envelope();
    const bool with_logprobs = request.logprobs.has_value(), with_usage = request.stream_usage;
    const auto backlog = std::make_shared<Backlog>(kMostBacklogBytes);
    const auto put = [=](const Piece& piece) {
      ordered_json event = base;
      event["choices"] = ordered_json::array(
          {choice_json(piece.choice, piece.text, piece.logprobs, piece.finish_reason, with_logprobs)});
      return backlog->put(text_of(event));
    };
    const auto work = begin(base["id"], request, backlog, put);
    const auto send = [=, this](const Reply::Write& write) {
      bool open = true;
      while (const auto part = backlog->take()) {
        if (open && !write(*part)) open = false, backlog->leave();
      }
      try {
        const Usage usage = result_of(*work);
        if (with_usage) {
          ordered_json event = base;
          event["choices"] = ordered_json::array();
          event["usage"] = usage_json(usage);
          write(text_of(event));
        }
        write("data: [DONE]\n\n");
      } catch (const std::exception& error) {  // the status is sent already
        const auto* known = dynamic_cast<const ApiError*>(&error);
        write(text_of(known != nullptr ? known->json() : ApiError(500, error.what()).json()));
      }
    };
    return {.type = "text/event-stream", .stream = send};
  }

  const Served served;
  const int64_t started = now();
  std::atomic<int64_t> completions_begun = 0;
  Metrics metrics;
  ModelThread thread;
};

Api::Api(const Served& served, const ApiOptions& options) : impl_(std::make_unique<Impl>(served, options)) {}
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
  impl_->metrics.count_request(impl_->label_of(path), reply.status);
  return reply;
}

Reply Api::refuse(int status, const std::string& path) {
  impl_->metrics.count_request(impl_->label_of(path), status);
  const char* why = status == 413   ? "the body is too large"
                    : status == 414 ? "the path is too long"
                    : status == 416 ? "ranges are not served"
                                    : "this is no request that can be read";
  return reply_of(ApiError(status, why));
}

}  // namespace ziggurat::serve
