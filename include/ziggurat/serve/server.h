// A model behind HTTP, with OpenAI's paths.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

struct Reply {
  int status = 200;
  std::string type = "application/json", body = {};
  // Not null: the body comes in parts, through write(), which returns false once the client is gone. An empty
  // part only asks for that.
  using Write = std::function<bool(std::string_view)>;
  std::function<void(const Write&)> stream = {};
};

// What is answered to whom, whatever carries it.
//   POST /v1/completions              GET /v1/models, /v1/models/<name>, /health, /metrics (Prometheus)
//   POST /tokenize, /detokenize       GET /tokenizer_info     (as vLLM's, for lm-eval's remote tokenizer)
// Requests may come from any threads; the model works on one at a time, on `model_threads` threads, and lets
// up to `most_waiting` wait.
class Api {
 public:
  Api(const Served& served, int model_threads, int64_t most_waiting = 96);
  ~Api();
  // Never throws: errors are replies with OpenAI's error object. `client_there` is asked a few times a second
  // while the model works, on the caller's thread: once it says no, the rest is not computed (499).
  Reply answer(
      const std::string& method, const std::string& path, const std::string& body,
      const std::function<bool()>& client_there = [] { return true; });
  // The reply to what never became a request: too large, too slow, no HTTP.
  static Reply refusal(int status);

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
