#include <algorithm>
#include <chrono>
#include <cstdlib>

#include <ziggurat/config/config.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/layer_loads.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_end.h>
#include <ziggurat/train/teacher.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

namespace {

// What the arenas may take: all there is on the CPU, where they grow. A device's are taken whole, as planned.
Executor::Memory room_for(const RunConfig& config, const Communicator& world) {
  if (config.device == Device::cpu) return {Arena::all_memory(), Arena::all_memory(), Arena::all_memory()};
  const MemoryPlan plan = plan_memory(config, world.size(), world.rank());
  const int64_t slack = plan.spare > 0 ? 2 : 1;
  return {slack * plan.activations, slack * plan.activation_gradients, slack * plan.workspace};
}

int64_t bytes_of_numbers(const RunConfig& config, const RunData& data, const Training& training) {
  return TrainStep::bytes_of_numbers(config, *training.objective) +
         Evaluation::bytes_of_numbers(config, data) + bytes_of_layer_loads(training.model);
}

RunConfig checked(const RunConfig& config, const Communicator& world) {
  check_trainable(config);
  check_tokenizer(config.data, config.model.vocab_size);
  check_for_ranks(config, world.size());
  return config;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, Communicator& world)
    : config_(checked(config, world)),
      folder_(config.output_folder(), world),
      training_(config_, world),
      data_(config_, world),
      executor_(config_, config.device, room_for(config, world), bytes_of_numbers(config, data_, training_)),
      step_(config_, training_, executor_),
      guard_(config_, training_, step_, executor_),
      feed_(config_, training_.groups.dp()),
      evaluation_(config_, training_, executor_),
      checkpoints_(config_, training_, data_, evaluation_, executor_, folder_),
      reporter_(config_, training_, folder_),
      deadline_(watch::process_started(), config.train.max_walltime, std::getenv("SLURM_JOB_END_TIME")),
      slow_ranks_(world.size()) {
  start();
}

void Trainer::start() {
  const std::string from =
      config_.checkpoint.resume == Resume::automatic ? checkpoints_.restore_newest() : checkpoints_.begin();
  // Moments are two thirds of what is saved.
  deadline_.guess_save(training_.optimizer.state().bytes_of_moments() * 3 / 2);
  const Cursor& cursor = training_.cursor;
  total_steps_ = cursor.step + steps_left(config_, cursor.samples);
  finished_ = cursor.step == total_steps_ && folder_.ended_at(cursor.step);
  if (finished_) return;
  prepare_objective();
  folder_.begin({.step = cursor.step,
                 .resumed_from = from,
                 .config = dump_config(config_),
                 .lineage = checkpoints_.lineage()});
}

// A teacher that does not fit must stop the run before anything in the folder changes.
void Trainer::prepare_objective() {
  flight_log().begin_phase(Phase::load, training_.cursor.step);
  const int64_t tokens = training_.cursor.samples * config_.batch.sequence_length;
  if (config_.distil.enabled() &&
      objective::distil_weight(config_.distil.weight, tokens, config_.train.tokens) > 0) {
    check_teacher(config_, *data_.train);
  }
  training_.objective->begin_step(tokens, executor_.stream);
}

void Trainer::tell_goal(const char* when) const {
  info("the goal is reached{}: train.tokens {}, {} tokens in {} steps; raise train.tokens to train on", when,
       config_.train.tokens, training_.cursor.samples * config_.batch.sequence_length, training_.cursor.step);
}

void Trainer::measure_roof() {
  Communicator& world = training_.groups.world();
  world.barrier();  // so that all ranks measure at the same time
  double roof = roof_meter_(training_.store.options().compute);
  world.all_reduce(Tensor(&roof, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, executor_.stream).wait();
  reporter_.set_roof(roof);
}

watch::StopRequest Trainer::run() {
  try {
    return train_to_goal();
  } catch (const Error& e) {
    // Every rank finds these at once, and what was copied before is good.
    if (e.kind() == ErrorKind::numeric) tell(checkpoints_.finish());
    throw;
  }
}

watch::StopRequest Trainer::train_to_goal() {
  info("{} | {} | {} threads a rank", config_.name, training_.groups.plan().str(), thread_count());
  if (config_.device == Device::cuda) {
    const Communicator& world = training_.groups.world();
    const std::string why_not = why_no_graphs(config_, world.size(), world.devices_exchange());
    info("micro-batches are queued {}{}",
         why_not.empty() ? "by one launch each" : "kernel by kernel: ", why_not);
  }
  constexpr auto kGoal = watch::StopRequest::none;
  if (finished_) return tell_goal(" already, and nothing is left to do"), kGoal;
  const int64_t& done = training_.cursor.step;
  if (done == total_steps_) tell_goal(" already");
  if (done == 0) reporter_.tell(validate(), Split::valid, "before training");
  // Measuring takes a tenth of these operations: a run of less needs no comparison with what it could have
  // been.
  constexpr double kWorthMeasuring = 1e12;
  const auto tokens_left =
      static_cast<double>(config_.train.tokens - training_.cursor.samples * config_.batch.sequence_length);
  const bool worth_measuring =
      model::count(config_.model, config_.batch.sequence_length).flops_per_token * tokens_left >
      kWorthMeasuring;
  while (done < total_steps_) {
    reporter_.tell(step());
    // Not before: a user waits for the first step.
    if (roof_meter_ && !reporter_.knows_roof() && worth_measuring) measure_roof();
    const bool stops = stop_ != kGoal && done < total_steps_;
    if (!stops) evaluate();
    guard_.check_replicas();
    if (stops || due(config_.checkpoint.every)) tell(checkpoints_.start_save());
    if (stops) return finish_saves(), reporter_.tell_stop(stop_), stop_;
  }
  if (data_.test != nullptr) {
    reporter_.tell(evaluation_.of(data_.test.get(), Split::test), Split::test, "on the test split");
  }
  finish_saves();
  flight_log().begin_phase(Phase::end, done);
  reporter_.tell_end();
  tell_goal("");
  return kGoal;
}

bool Trainer::due(int64_t every) const {
  const int64_t done = training_.cursor.step;
  return done == total_steps_ || (every > 0 && done % every == 0);
}

void Trainer::evaluate() {
  const Timer timer;
  const bool validates = due(config_.eval.every), does_tasks = evaluator_ && due(config_.eval.tasks_every),
             samples = sampler_ && due(config_.eval.samples_every);
  if (validates) {
    reporter_.tell(validate(), Split::valid,
                   training_.cursor.step == total_steps_ ? "after training" : "so far");
  }
  if (does_tasks || samples) {
    flight_log().begin_phase(Phase::evaluation, training_.cursor.step);
    training_.store.await_values();  // texts have a stream of their own
    finish_queued_work();
  }
  if (does_tasks) reporter_.tell(evaluator_(training_.model));
  if (samples) reporter_.tell(sampler_(training_.model));
  if (validates || does_tasks || samples) deadline_.took_evaluation(timer.seconds());
}

void Trainer::save() {
  tell(checkpoints_.start_save());
  finish_saves();
}

void Trainer::tell(const Checkpoints::Ended& saves) {
  for (const SaveOutcome& save : saves) {
    reporter_.tell(save);
    if (save.error.empty()) deadline_.took_save(save.stall_seconds + save.write_seconds);
    save_failure_ = save.error;
    check(save.error.empty() || config_.checkpoint.on_failure != OnSaveFailure::stop, ErrorKind::checkpoint,
          "the checkpoint of step {} could not be saved, and checkpoint.on_failure is stop: {}", save.step,
          save.error);
  }
}

void Trainer::finish_saves() {
  tell(checkpoints_.finish());
  check(save_failure_.empty(), ErrorKind::checkpoint,
        "the last checkpoint could not be saved: {}. Started again, the run goes on from the one before",
        save_failure_);
}

// To the newest checkpoint, and past the samples up to the last of this step. False: there is none.
bool Trainer::rewind(const StepPlan& plan, const std::string& why) {
  Cursor& cursor = training_.cursor;
  const int64_t spike = cursor.step + 1, end = plan.first_sample + plan.samples;
  flight_log().begin_phase(Phase::load, cursor.step);
  tell(checkpoints_.finish());
  const std::string checkpoint = checkpoints_.rewind();
  if (checkpoint.empty()) return false;
  guard_.count_rewind(cursor.step);
  const IndexRange skipped{cursor.position(), end};
  cursor.skipped.push_back(skipped);
  data_.reach_end(config_, cursor);
  folder_.begin({.step = cursor.step,
                 .resumed_from = checkpoint,
                 .config = dump_config(config_),
                 .lineage = checkpoints_.lineage()});
  reporter_.tell_rewind(spike, skipped, why);
  return true;
}

StepRecord Trainer::step() {
  const Timer timer;
  const DeviceWork before = device_work();
  StepPlan plan = plan_step(config_, training_.groups.dp().size(), training_.cursor.samples);
  plan.first_sample = training_.cursor.position();
  const SampleSource& source = *data_.train;
  flight_log().begin_phase(Phase::step, training_.cursor.step + 1);
  const int64_t waited_before = flight_log().waited();
  const double without_core_before = watch::seconds_without_core();
  const double counted = feed_.begin(source, plan, training_.cursor.step + 1, executor_.stream);
  const Guard::Guarded guarded =
      guard_.run(plan, counted, [&](int64_t micro_batch) { return feed_.read(source, plan, micro_batch); });
  if (guarded.rewind) {
    if (rewind(plan, guarded.left_out)) return step();
    guard_.leave_out(plan, guarded.left_out + "; there is no checkpoint yet to rewind to");
  }

  StepRecord done = reporter_.record(plan, guarded.result, total_steps_, timer.seconds(), feed_.seconds());
  const double waited = static_cast<double>(flight_log().waited() - waited_before) * 1e-9;
  tell_each_other(done, {.computed = timer.seconds() - waited,
                         .without_core = watch::seconds_without_core() - without_core_before});
  done.left_out = guarded.left_out;
  done.updates_left_out = training_.cursor.left_out;
  done.layers = layer_loads(training_, executor_);
  done.launches = device_work().launches - before.launches;
  done.graphs = device_work().graphs - before.graphs;
  done.waits = device_work().waits - before.waits;
  return done;
}

void Trainer::tell_each_other(StepRecord& done, const watch::StepTime& time) {
  step_times_.add(done.step_seconds);
  flight_log().set_usual_step(step_times_.median());
  deadline_.took_step(done.step_seconds);
  const StepEnd end = tell_step_end(training_.groups.world(), {.memory_bytes = resident_bytes(),
                                                               .made_folder_again = folder_.keep(done.step),
                                                               .stop = stop_asked(),
                                                               .time = time,
                                                               .lag = checkpoints_.lag()});
  done.memory_bytes = end.memory_bytes;
  stop_ = end.stop;
  if (end.made_folder_again) remake_log_file();
  tell(checkpoints_.advance(end.lag));
  for (const watch::SlowRanks::Verdict& rank : slow_ranks_.add(end.times)) reporter_.tell(rank);
}

watch::StopRequest Trainer::stop_asked() const {
  using watch::StopRequest;
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const bool evaluates = due(config_.eval.every) || (evaluator_ && due(config_.eval.tasks_every));
  StopRequest request = watch::stop_asked_by_signal();
  if (folder_.stop_asked()) request = std::max(request, StopRequest::stop_file);
  if (deadline_.reached(now, evaluates, due(config_.checkpoint.every))) {
    request = std::max(request, StopRequest::walltime);
  }
  return request;
}

}  // namespace ziggurat::train
