// HTTP by cpp-httplib: one header and a small library, a thread per connection from a pool, limits on bodies
// and headers, bodies in parts. (Boost.Beast would leave all of these to us; Debian 12 has no smaller one
// that is kept.)
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include <httplib.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {

namespace {

constexpr size_t kConnections = 16;  // at once; more wait
constexpr int kSecondsToRead = 10, kSecondsToWrite = 10, kSecondsIdle = 5;

void send(const Reply& reply, httplib::Response& response) {
  response.status = reply.status;
  if (!reply.stream) {
    response.set_content(reply.body, reply.type.c_str());
    return;
  }
  response.set_chunked_content_provider(reply.type, [stream = reply.stream](size_t, httplib::DataSink& sink) {
    bool open = true;
    stream([&](std::string_view part) {
      open = open && sink.is_writable() && sink.write(part.data(), part.size());
      return open;
    });
    if (open) sink.done();
    return open;
  });
}

// Stops the server on SIGTERM or SIGINT. The handler, on whatever thread, only wakes a thread that may do
// more.
class Stopper {
 public:
  explicit Stopper(httplib::Server& server) {
    const int reason = ::pipe(wake_) == 0 ? 0 : errno;
    check(reason == 0, ErrorKind::internal, "no pipe: {}", std::strerror(reason));
    for (const int signal : kSignals)
      std::signal(signal, [](int number) { wake(static_cast<char>(number)); });
    thread_ = std::thread([&server] {
      char signal = 0;
      while (::read(wake_[0], &signal, 1) < 0 && errno == EINTR) {
      }
      if (signal != 0) info("signal {}: ends what was begun, then stops", static_cast<int>(signal));
      server.stop();
    });
  }
  ~Stopper() {
    for (const int signal : kSignals) std::signal(signal, SIG_DFL);
    wake(0);
    thread_.join();
    for (const int end : wake_) ::close(end);
  }
  Stopper(const Stopper&) = delete;
  Stopper& operator=(const Stopper&) = delete;

 private:
  static void wake(char signal) { [[maybe_unused]] const auto written = ::write(wake_[1], &signal, 1); }

  static constexpr int kSignals[] = {SIGTERM, SIGINT};
  inline static int wake_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace

void serve(Api& api, const ServerOptions& options, const std::function<void(int port)>& on_listening) {
  std::signal(SIGPIPE, SIG_IGN);  // a client that goes is no reason to end
  httplib::Server server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kConnections); };
  server.set_payload_max_length(static_cast<size_t>(options.most_body_bytes));
  server.set_read_timeout(kSecondsToRead);
  server.set_write_timeout(kSecondsToWrite);
  server.set_keep_alive_timeout(kSecondsIdle);
  server.set_keep_alive_max_count(1'000'000);
  server.set_tcp_nodelay(true);

  const auto answer = [&](const httplib::Request& request, httplib::Response& response) {
    send(api.answer(request.method, request.path, request.body), response);
  };
  server.Get(".*", answer);
  server.Post(".*", answer);
  server.Put(".*", answer);
  server.Patch(".*", answer);
  server.Delete(".*", answer);
  server.Options(".*", answer);
  server.set_error_handler([](const httplib::Request&, httplib::Response& response) {
    if (response.body.empty()) send(Api::refusal(response.status), response);
  });

  const int port = options.port == 0                                 ? server.bind_to_any_port(options.host)
                   : server.bind_to_port(options.host, options.port) ? options.port
                                                                     : -1;
  check(port > 0, ErrorKind::argument,
        "cannot listen on {} port {}: is it in use, or another machine's address?", options.host,
        options.port);
  const Stopper stopper(server);
  on_listening(port);
  server.listen_after_bind();
}

}  // namespace ziggurat::serve
