#include "apps/on_ranks.h"

#include <cstdlib>
#include <optional>

#include "apps/machine.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/log.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/stop_requests.h>
#include <ziggurat/watch/watchdog.h>

namespace ziggurat::apps {

void on_ranks(const RankOptions& options, const std::function<void(MpiRuntime&)>& body) {
  std::optional<watch::Watchdog> watchdog;  // ends after MPI: then nobody waits for this rank any more
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    init_log(world.rank(), world.size());
    use_threads(options.threads, "--threads", mpi.local_size());
    if (options.watch.enabled && world.size() > 1) {
      watchdog.emplace(world, node_of(options.ranks_per_node, mpi, world), options.watch);
    }
    use_device(options.device, mpi);
    body(mpi);
  } catch (const std::exception& error) {
    if (world.size() == 1) throw;
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    // Most mistakes are met by every rank: rank 0 tells them, unless it has none.
    if (world.rank() != 0) watch::leave_it_to_rank_0();
    const std::string text = fmt::format("{} error: {}", to_string(kind), error.what());
    log_fatal(fmt::format("rank {} of {}: {}", world.rank(), world.size(), text));
    flight_log().say_last_words("ended by a " + text, exit_code(kind), true);
    watch::report_exits(false);
    mpi.abort(exit_code(kind));
  }
}

void check_one_process(const char* command) {
  check(launched_rank(std::getenv) == 0, ErrorKind::argument,
        "`ziggurat {}` works in one process, with every core: start it without mpirun", command);
}

}  // namespace ziggurat::apps
