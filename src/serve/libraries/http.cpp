// HTTP by cpp-httplib: one header and a small library, a thread per connection from a pool, limits on bodies
// and headers, bodies in parts. (Boost.Beast would leave all of these to us; Debian 12 has no smaller one
// that is kept.)
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include <httplib.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/signals.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {

namespace {

// At once; more wait. Well above the requests that may wait for the model (Api's most_waiting), so that
// /health and /metrics are answered, and refusals too, however many do.
constexpr size_t kConnections = 112;
constexpr int kSecondsToRead = 10, kSecondsToWrite = 10, kSecondsIdle = 5;

void send(const Reply& reply, httplib::Response& response) {
  if (reply.status != 200) response.status = reply.status;  // else the library's: 206 of a range
  if (reply.retry_after > 0) response.set_header("Retry-After", std::to_string(reply.retry_after));
  if (!reply.stream) {
    response.set_content(reply.body, reply.type.c_str());
    return;
  }
  response.set_chunked_content_provider(reply.type, [stream = reply.stream](size_t, httplib::DataSink& sink) {
    bool open = true;
    stream([&](std::string_view part) {
      open = open && sink.is_writable() && (part.empty() || sink.write(part.data(), part.size()));
      return open;
    });
    if (open) sink.done();
    return open;
  });
}

// Is the client of a request still there? The library keeps its socket to itself, so the first question looks
// for it among the open files. One that says that it will send no more counts as gone, as in a stream.
class Client {
 public:
  explicit Client(const httplib::Request& request) : request_(request) {}

  bool is_there() {
    if (!searched_) socket_ = find(), searched_ = true;
    if (socket_ < 0) return true;  // nobody knows
    pollfd asked{socket_, POLLRDHUP, 0};
    return ::poll(&asked, 1, 0) <= 0;
  }

 private:
  int find() const {
    std::error_code unreadable;
    const std::filesystem::directory_iterator end;
    for (std::filesystem::directory_iterator file("/proc/self/fd", unreadable); !unreadable && file != end;
         file.increment(unreadable)) {
      const int number = std::atoi(file->path().filename().c_str());
      if (is_peer(number)) return number;
    }
    return -1;
  }
  bool is_peer(int socket) const {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    auto* address = reinterpret_cast<sockaddr*>(&peer);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    return ::getpeername(socket, address, &size) == 0 &&
           ::getnameinfo(address, size, host, sizeof host, port, sizeof port,
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0 &&
           request_.remote_addr == host && std::to_string(request_.remote_port) == port;
  }

  const httplib::Request& request_;
  bool searched_ = false;
  int socket_ = -1;
};

// Stops the server on SIGTERM or SIGINT. The handler, on whatever thread, only wakes a thread that may do
// more.
class Stopper {
 public:
  explicit Stopper(httplib::Server& server) {
    const int reason = ::pipe(wake_) == 0 ? 0 : errno;
    check(reason == 0, ErrorKind::internal, "no pipe: {}", std::strerror(reason));
    for (const int signal : kSignals)
      handle_signal(signal, [](int number) { wake(static_cast<char>(number)); });
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
  // The library would add SO_REUSEPORT, with which a second server takes half of the first one's requests.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });

  const auto answer = [&](const httplib::Request& request, httplib::Response& response) {
    send(api.answer(request.method, request.path, request.body), response);
  };
  // Bodies as they are, whatever type the client gives them (curl says of any that it is a form, which the
  // library would take apart and cut off at 8 KiB).
  const auto answer_with_body = [&](const httplib::Request& request, httplib::Response& response,
                                    const httplib::ContentReader& read) {
    std::string body;
    const bool whole = read([&](const char* part, size_t size) {
      body.append(part, size);
      return true;
    });
    if (!whole) return;
    Client client(request);
    send(api.answer(request.method, request.path, body, [&] { return client.is_there(); }), response);
  };
  const char* any = R"([\s\S]*)";  // a path may hold line breaks
  server.Get(any, answer);
  server.Post(any, answer_with_body);
  server.Put(any, answer_with_body);
  server.Patch(any, answer_with_body);
  server.Delete(any, answer_with_body);
  server.Options(any, answer);
  server.set_error_handler([&](const httplib::Request& request, httplib::Response& response) {
    if (response.body.empty()) send(api.refuse(response.status, request.path), response);
  });

  const int port = options.port == 0                                 ? server.bind_to_any_port(options.host)
                   : server.bind_to_port(options.host, options.port) ? options.port
                                                                     : -1;
  check(port > 0, ErrorKind::argument,
        "cannot listen on {} port {}: is it in use, or another machine's address? Choose another with --port "
        "(0: any that is free) or --host",
        options.host, options.port);
  const Stopper stopper(server);
  on_listening(port);
  server.listen_after_bind();
}

}  // namespace ziggurat::serve
