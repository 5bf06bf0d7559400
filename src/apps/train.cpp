// ziggurat train CONFIG [key=value ...]
#include <cstdlib>
#include <new>
#include <optional>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/prompt_sampler.h"
#include "apps/task_evaluator.h"
#include <ziggurat/bench/roof.h>
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/exit_codes.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/run_tokenizer.h>
#include <ziggurat/train/start_values.h>
#include <ziggurat/train/trainer.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/stop_requests.h>
#include <ziggurat/watch/watchdog.h>

namespace ziggurat::apps {

namespace {

// A GPU's memory for texts is taken when they come. Whether it is there shows before the first step.
template <class Texts>
void try_memory_of_texts(const char* key, const std::optional<Texts>& texts, const model::Gpt& model) {
  if (!texts) return;
  try {
    texts->device_bytes(model);
  } catch (const Error& error) {
    fail(error.kind(), "{}: beside training there is no room for texts (`ziggurat plan` counts it): {}", key,
         error.what());
  }
}

}  // namespace

int train(const ConfigArguments& arguments) {
  watch::listen_to_stop_signals(started_by_mpi_launcher(std::getenv));
  train::RunConfig config;
  load_config(config, arguments.path,
              arguments.overrides);  // before MPI starts: a mistake is told within milliseconds
  train::check_trainable(config);
  const bool injected = injecting();

  std::optional<watch::Watchdog> watchdog;  // ends after MPI: then nobody waits for this rank any more
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    const std::string slow = choose_thread_count(config.threads, "threads", mpi.local_size());
    init_log(world.rank(), world.size());
    if (!slow.empty()) warn("{}", slow);
    if (config.watch.enabled) {
      watchdog.emplace(world, node_of(config.parallel.ranks_per_node, mpi, world), config.watch);
    }
    if (injected) warn("faults are injected, as ZIGGURAT_INJECT says");
    reach(Site::init, world.rank(), 0);
    check_same_on_all_ranks(world, train::start_values(config));  // before anything can hang
    train::check_for_ranks(config, world.size());
    use_device(config.device, mpi);
    use_nodes(config.parallel.ranks_per_node, config.parallel.all_to_all, mpi, world);
    if (world.rank() == 0) {
      for (const train::Warning& warning : train::warnings_of(config)) warn("{}", train::to_string(warning));
    }
    std::optional<TaskEvaluator> evaluator;  // before the trainer: what is wrong with the tasks shows at once
    if (!config.eval.tasks.empty()) evaluator.emplace(config, world);
    std::optional<PromptSampler> sampler;
    if (!config.eval.prompts.empty()) sampler.emplace(config);
    train::Trainer trainer(config, world);
    log_to_folder(config.output_folder());  // it is this run's from now on
    if (watchdog) watchdog->use_folder(config.output_folder());
    if (world.rank() == 0) train::save_tokenizer(config, trainer.train_data().tokenizer_sha256());
    if (config.device == Device::cuda) {
      try_memory_of_texts("eval.tasks", evaluator, trainer.model());
      try_memory_of_texts("eval.prompts", sampler, trainer.model());
    }
    if (evaluator) trainer.set_evaluator(*std::move(evaluator));
    if (sampler) trainer.set_sampler(*std::move(sampler));
    if (config.device == Device::cpu) trainer.set_roof_meter(bench::measure_gemm_roof);
    const bool stopped = trainer.run() != watch::StopRequest::none;
    reach(Site::shutdown, world.rank(), trainer.steps_done());
    return stopped ? exit_codes::saved : exit_codes::done;
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const Error*>(&error);
    const ErrorKind kind = ours == nullptr ? ErrorKind::internal : ours->kind();
    if (world.size() == 1) throw;
    // Every rank finds the same mistake in a config or in the data that it names: let rank 0 tell it, unless
    // it does not come to that.
    const bool same_everywhere =
        kind == ErrorKind::config || kind == ErrorKind::data || kind == ErrorKind::checkpoint;
    if (same_everywhere && world.rank() != 0) watch::leave_it_to_rank_0();
    const bool no_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    const std::string text = fmt::format("{} error: {}{}", to_string(kind), error.what(),
                                         no_memory ? ": " + Arena::describe_limits() : "");
    log_fatal(fmt::format("rank {} of {}: {}", world.rank(), world.size(), text));
    flight_log().say_last_words("ended by a " + text, exit_code(kind), true);
    if (watchdog && kind == ErrorKind::numeric) watchdog->let_others_tell();
    watch::report_exits(false);
    mpi.abort(exit_code(kind));
  }
}

}  // namespace ziggurat::apps
