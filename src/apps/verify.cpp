// ziggurat verify CONFIG: the first steps of a run on two devices, tensor by tensor.
#include <algorithm>
#include <cstdio>
#include <functional>

#include <fmt/ranges.h>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/on_ranks.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/verify.h>

namespace ziggurat::apps {

void verify(const VerifyArguments& arguments) {
  train::RunConfig config, other;
  load_config(config, arguments.config.path, arguments.config.overrides);
  std::vector<std::string> overrides = arguments.config.overrides;
  overrides.insert(overrides.end(), arguments.against.begin(), arguments.against.end());
  load_config(other, arguments.config.path, overrides);
  train::check_trainable(config);
  train::check_trainable(other);
  check(dump_config(config) != dump_config(other), ErrorKind::argument,
        "the second run would be the first: choose device=cuda, or what else differs by --against key=value");
  const double tolerance = arguments.tolerance > 0
                               ? arguments.tolerance
                               : std::max(train::verify_tolerance(config), train::verify_tolerance(other));
  const Device device = config.device == Device::cpu ? other.device : config.device;
  const auto body = [&](MpiRuntime& mpi) {
    Communicator& world = mpi.world();
    train::check_for_ranks(config, world.size());
    train::check_for_ranks(other, world.size());
    // Each run goes by the nodes of its config.
    const auto other_world = world.split(0, world.rank(), "world of the second run");
    use_nodes(config.parallel.ranks_per_node, config.parallel.all_to_all, mpi, world);
    use_nodes(other.parallel.ranks_per_node, other.parallel.all_to_all, mpi, *other_world);
    const bool tells = world.rank() == 0;
    if (tells) {
      fmt::print("{}, and again with {}; tolerance {:.1e}\n", config.name, fmt::join(arguments.against, " "),
                 tolerance);
    }
    const auto report = [&](const train::StepDeviation& step) {
      if (tells) {
        fmt::print("step {}: loss {:.6f} and {:.6f}; most apart: {}, by {:.2e}\n", step.step, step.loss,
                   step.other_loss, step.worst.what, step.worst.difference);
      }
      check(
          !step.first, ErrorKind::numeric,
          "step {}: {} differ by {:.2e} of their size, more than --tolerance {:.1e}; what comes before it in "
          "the step agrees",
          step.step, step.first ? step.first->what : "", step.first ? step.first->difference : 0.0,
          tolerance);
    };
    Progress progress("verify", "steps");
    train::verify(config, other, arguments.steps, tolerance, world, *other_world, report, std::ref(progress));
    if (tells) fmt::print("{} steps agree\n", arguments.steps);
  };
  on_ranks({.threads = config.threads, .device = device}, body);
}

}  // namespace ziggurat::apps
