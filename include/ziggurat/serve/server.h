// A model behind HTTP, with OpenAI's paths.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

struct Reply {
  int status = 200;
  std::string type = "application/json", body = {};
  int64_t retry_after = 0;  // seconds, a header; 0: none
  // Not null: the body comes in parts, through write(), which returns false once the client is gone. An empty
  // part only asks for that.
  using Write = std::function<bool(std::string_view)>;
  std::function<void(const Write&)> stream = {};
};

// What is answered to whom, whatever carries it.
//   POST /v1/completions              GET /v1/models, /v1/models/<name>, /health, /metrics (Prometheus)
//   POST /tokenize, /detokenize       GET /tokenizer_info     (as vLLM's, for lm-eval's remote tokenizer)
// Requests may come from any threads; the model writes their texts side by side.
struct ApiOptions {
  int model_threads = 1;
  int64_t most_requests = 96;  // under way or waiting; more are refused (429, with Retry-After)
  double most_seconds = 0;     // that a request may take (504); 0: any
  std::string log = {};        // a line of JSON for each completion is appended to this file; empty: none
  // Of a served.world of several: told when they cannot go on together; does not return.
  std::function<void(const std::exception&)> on_lost = {};
};
class Api {
 public:
  Api(const Served& served, const ApiOptions& options);
  ~Api();
  // Never throws: errors are replies with OpenAI's error object. `client_there` is asked a few times a second
  // while the model works, on the caller's thread: once it says no, the rest is not computed (499).
  Reply answer(
      const std::string& method, const std::string& path, const std::string& body,
      const std::function<bool()>& client_there = [] { return true; });
  // The reply to what never became a request: too large, too slow, no HTTP.
  Reply refuse(int status, const std::string& path);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: any that is free
  int64_t most_body_bytes = int64_t{8} << 20;
};

// Serves until SIGTERM or SIGINT, then ends what was begun. `on_listening` is told the port. Throws
// Error(argument) if it cannot listen there, or if built without the library.
void serve(Api& api, const ServerOptions& options, const std::function<void(int port)>& on_listening);

}  // namespace ziggurat::serve
