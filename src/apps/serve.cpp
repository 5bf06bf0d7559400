// ziggurat serve --checkpoint DIR
#include <algorithm>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/trained_model.h"
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::apps {

void serve(const ServeArguments& arguments) {
  check_one_process("serve");
  use_threads(arguments.threads, "--threads");
  const auto self = make_self_communicator();
  const TrainedModel trained(arguments.checkpoint, arguments.precision, arguments.tokenizer,
                             arguments.average, *self);
  const int64_t most = trained.config().model.max_sequence,
                length = arguments.max_length > 0 ? arguments.max_length
                                                  : std::min(trained.config().batch.sequence_length, most);
  check(length <= most, ErrorKind::argument, "--max-length: the model has {} positions, got {}", most,
        length);
  const serve::Served served{.model = trained.model(),
                             .tokenizer = trained.tokenizer(),
                             .name = arguments.name.empty() ? trained.config().name : arguments.name,
                             .length = length};
  serve::Api api(served, thread_count());
  serve::serve(api, {.host = arguments.host, .port = arguments.port}, [&](int port) {
    info("{} of step {} at http://{}:{}/v1/completions", served.name, trained.step(), arguments.host, port);
  });
}

}  // namespace ziggurat::apps
