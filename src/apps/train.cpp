// ziggurat train CONFIG [key=value ...]
#include <algorithm>
#include <cstdio>
#include <new>

#include <unistd.h>

#include "apps/commands.h"
#include "apps/task_evaluator.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/run_tokenizer.h>
#include <ziggurat/train/start_values.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

void train(const ConfigArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.path,
              arguments.overrides);  // before MPI starts: a mistake is told within milliseconds
  train::check_trainable(config);

  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    const std::string slow = choose_thread_count(config.threads, "threads", mpi.local_size());
    init_log(world.rank(), world.size());
    if (!slow.empty()) warn("{}", slow);
    check_same_on_all_ranks(world, train::start_values(config));  // before anything can hang
    train::check_for_ranks(config, world.size());
    if (world.rank() == 0) {
      for (const train::Warning& warning : train::warnings_of(config)) warn("{}", train::to_string(warning));
    }
    train::Trainer::Evaluator evaluator;  // before the trainer: what is wrong with the tasks shows at once
    if (!config.eval.tasks.empty()) evaluator = TaskEvaluator(config, world);
    train::Trainer trainer(config, world);
    log_to_folder(config.output_folder());  // it is this run's from now on
    if (world.rank() == 0) train::save_tokenizer(config, trainer.train_data().tokenizer_sha256());
    trainer.set_evaluator(std::move(evaluator));
    trainer.run();
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    if (world.size() == 1) throw;
    // Every rank finds the same mistake in a config or in the data that it names: let rank 0 tell it, unless
    // it does not come to that.
    const bool same_everywhere =
        kind == ErrorKind::config || kind == ErrorKind::data || kind == ErrorKind::checkpoint;
    if (same_everywhere && world.rank() != 0) sleep(2);
    const bool no_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    log_fatal(fmt::format("rank {} of {}: {} error: {}{}", world.rank(), world.size(), to_string(kind),
                          error.what(), no_memory ? ": " + Arena::describe_limits() : ""));
    mpi.abort(exit_code(kind));
  }
}

}  // namespace ziggurat::apps
