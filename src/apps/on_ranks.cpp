#include "apps/on_ranks.h"

#include <algorithm>

#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

void on_ranks(int threads, const std::function<void(Communicator&)>& body) {
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    set_thread_count(threads > 0 ? threads : std::max(1, available_cores() / mpi.local_size()));
    init_log(world.rank(), world.size(), "");
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
