#include "apps/on_ranks.h"

#include <cstdlib>

#include "apps/machine.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::apps {

void on_ranks(int threads, const std::function<void(MpiRuntime&)>& body, Device device) {
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    init_log(world.rank(), world.size());
    use_threads(threads, "--threads", mpi.local_size());
    use_device(device, mpi);
    body(mpi);
  } catch (const std::exception& error) {
    if (world.size() == 1) throw;
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    // Most mistakes are met by every rank: rank 0 tells them, unless it has none.
    if (world.rank() != 0) watch::leave_it_to_rank_0();
    log_fatal(fmt::format("rank {} of {}: {} error: {}", world.rank(), world.size(), to_string(kind),
                          error.what()));
    mpi.abort(exit_code(kind));
  }
}

void check_one_process(const char* command) {
  check(launched_rank(std::getenv) == 0, ErrorKind::argument,
        "`ziggurat {}` works in one process, with every core: start it without mpirun", command);
}

}  // namespace ziggurat::apps
