// ziggurat train CONFIG [key=value ...]
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>

#include <unistd.h>

#include "apps/commands.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

namespace {

void train(const std::string& path, const std::vector<std::string>& overrides) {
  train::RunConfig config;
  load_config(config, path, overrides);  // before MPI starts: a mistake is told within milliseconds

  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    const int threads =
        config.threads > 0 ? config.threads : std::max(1, available_cores() / mpi.local_size());
    set_thread_count(threads);
    init_log(world.rank(), world.size(), config.output_folder());
    train::check_for_ranks(config, world.size());
    if (world.rank() == 0) std::ofstream(config.output_folder() + "/config.yaml") << dump_config(config);
    train::Trainer(config, world).run();
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    if (world.size() == 1) throw;
    // Every rank finds the same mistake in a config: let rank 0 tell it, unless it does not come to that.
    const bool same_everywhere = kind == ErrorKind::config || kind == ErrorKind::checkpoint;
    if (same_everywhere && world.rank() != 0) sleep(2);
    log_fatal(fmt::format("rank {} of {}: {} error: {}", world.rank(), world.size(), to_string(kind),
                          error.what()));
    mpi.abort(exit_code(kind));
  }
}

}  // namespace

void add_train(CLI::App& app) {
  struct Arguments {
    std::string path;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("train", "Train a model; start it by mpirun or srun for several ranks");
  command->add_option("config", arguments->path, "YAML file")->required();
  command->add_option("overrides", arguments->overrides, "key=value, e.g. optimizer.lr=1e-4");
  command->callback([arguments] { train(arguments->path, arguments->overrides); });
}

}  // namespace ziggurat::apps
