#include "apps/on_ranks.h"

#include <unistd.h>

#include "apps/commands.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>

namespace ziggurat::apps {

void on_ranks(int threads, const std::function<void(Communicator&)>& body) {
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    init_log(world.rank(), world.size());
    use_threads(threads, "--threads", mpi.local_size());
    body(world);
  } catch (const std::exception& error) {
    if (world.size() == 1) throw;
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    if (world.rank() != 0)
      sleep(2);  // most mistakes are met by every rank: rank 0 tells them, unless it has none
    log_fatal(fmt::format("rank {} of {}: {} error: {}", world.rank(), world.size(), to_string(kind),
                          error.what()));
    mpi.abort(exit_code(kind));
  }
}

}  // namespace ziggurat::apps
