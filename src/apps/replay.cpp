// ziggurat replay: a past step of a run once more, with the same bits.
#include <cstdio>
#include <functional>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/on_ranks.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/train/replay.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

void replay(const ReplayArguments& arguments) {
  check(arguments.dump.empty() == arguments.output.empty(), ErrorKind::argument,
        "--dump and --output belong together: which tensors, and the folder for them");
  train::RunConfig config;
  {
    const CheckpointReader newest(arguments.checkpoint);
    parse_config(config, newest.manifest().config, newest.path());
  }
  const auto body = [&](MpiRuntime& mpi) {
    Communicator& world = mpi.world();
    use_nodes(config.parallel.ranks_per_node, config.parallel.all_to_all, mpi, world);
    const bool tells = world.rank() == 0;
    int64_t different = 0;
    const auto report = [&](const train::ReplayedStep& step) {
      different += step.differs() ? 1 : 0;
      if (!tells) return;
      const std::string beside =
          step.differs()  ? fmt::format("but {:.6f} ({:a}) was recorded", *step.recorded, *step.recorded)
          : step.recorded ? "as recorded"
                          : "of which metrics.jsonl does not tell";
      fmt::print("step {}: loss {:.6f} ({:a}), {}\n", step.record.step, step.record.loss, step.record.loss,
                 beside);
    };
    Progress progress("replay", "steps");
    train::replay({arguments.checkpoint, arguments.step, arguments.dump, arguments.output}, world, report,
                  std::ref(progress));
    check(
        different == 0, ErrorKind::numeric,
        "{} steps have another loss than the run recorded. The same bits need the same program, ranks, "
        "threads "
        "and kind of machine (`ziggurat --version`, threads=N); where all these agree, a machine was faulty",
        different);
    if (tells && !arguments.output.empty()) fmt::print("tensors are in {}\n", arguments.output);
  };
  on_ranks({.threads = config.threads, .device = config.device}, body);
}

}  // namespace ziggurat::apps
