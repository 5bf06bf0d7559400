// ziggurat serve --checkpoint DIR
#include <algorithm>
#include <csignal>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/sharing.h"
#include "apps/trained_model.h"
#include <ziggurat/config/units.h>
#include <ziggurat/core/amounts.h>
#include <ziggurat/core/log.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::apps {

namespace {

// Tokens whose keys and values --cache has room for.
int64_t cache_tokens(const ServeArguments& arguments, const model::Gpt& model, int64_t length) {
  constexpr int64_t kShare = 4;  // of the machine's memory
  const model::ModelConfig& c = model.config();
  const int64_t of_token = 2 * c.layer_count() * model.own_key_value_heads() * c.head_width() *
                           size_of(model.dtype()),
                all = infer::cache_tokens_for(arguments.texts, length);
  if (arguments.cache.empty()) {
    if (model.device() != Device::cpu) return all;  // what does not fit is told by the memory's name
    const int64_t share = Arena::all_memory() / kShare / of_token;
    return std::min(all, std::max(share, infer::cache_tokens_for(1, length)));
  }
  const int64_t tokens = parse_bytes(arguments.cache) / of_token;
  const int64_t least = infer::cache_tokens_for(1, length);
  check(tokens >= least, ErrorKind::argument,
        "--cache: {} holds {} tokens of {} bytes, but a text of {} takes the blocks of {} while it grows: "
        "give it "
        "at least {}, or let texts be shorter (--max-length)",
        arguments.cache, tokens, of_token, length, least,
        format_bytes(static_cast<double>(least * of_token)));
  return tokens;
}

// Nodes may have more memory or less.
int64_t least_of(Communicator& world, int64_t tokens) {
  for (const std::string& theirs : world.all_gather_text(std::to_string(tokens))) {
    tokens = std::min<int64_t>(tokens, std::stoll(theirs));
  }
  return tokens;
}

// On each rank; the first one answers.
void serve_on(MpiRuntime& mpi, const ServeArguments& arguments) {
  Communicator& world = mpi.world();
  const model::InferenceLayout layout = layout_of(arguments.sharing);
  use_nodes(layout.ranks_per_node, layout.all_to_all, mpi, world);
  const TrainedModel trained(arguments.checkpoint, arguments.precision, arguments.tokenizer,
                             arguments.average, world, form_of(arguments.weights), layout, arguments.device);
  const int64_t most = trained.config().model.max_sequence,
                length = arguments.max_length > 0 ? arguments.max_length
                                                  : std::min(trained.config().batch.sequence_length, most);
  check(length <= most, ErrorKind::argument, "--max-length: the model has {} positions, got {}", most,
        length);
  const serve::Served served{
      .model = trained.model(),
      .tokenizer = trained.tokenizer(),
      .name = arguments.name.empty() ? trained.config().name : arguments.name,
      .length = length,
      .texts = arguments.texts,
      .cache_tokens = least_of(world, cache_tokens(arguments, trained.model(), length)),
      .world = &world};
  if (world.rank() != 0) {
    // The first rank tells when it is over, also after a signal that all of them got.
    for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, SIG_IGN);
    return infer::Engine(served.model, serve::engine_options(served), &world).follow();
  }
  serve::Api api(served, {.model_threads = thread_count(),
                          .most_requests = arguments.most_requests,
                          .most_seconds = arguments.time_limit,
                          .log = arguments.log,
                          .on_lost = [&](const std::exception& error) {
                            log_fatal(fmt::format("rank 0 of {}: {}", world.size(), error.what()));
                            mpi.abort(exit_code(ErrorKind::communication));
                          }});
  serve::serve(api, {.host = arguments.host, .port = arguments.port}, [&](int port) {
    info("{} of step {} at http://{}:{}/v1/completions", served.name, trained.step(), arguments.host, port);
  });
}

}  // namespace

void serve(const ServeArguments& arguments) {
  on_ranks(ranks_of(arguments.sharing, arguments.threads, arguments.device),
           [&](MpiRuntime& mpi) { serve_on(mpi, arguments); });
}

}  // namespace ziggurat::apps
