#include <ziggurat/core/error.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {

void serve(Api&, const ServerOptions&, const std::function<void(int port)>&) {
  fail(ErrorKind::argument,
       "this build has no HTTP server: install libcpp-httplib-dev, then build again for `ziggurat serve`");
}

}  // namespace ziggurat::serve
