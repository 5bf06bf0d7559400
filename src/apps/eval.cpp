// ziggurat eval --checkpoint DIR --tasks lambada,piqa --data DIR
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/sharing.h"
#include "apps/trained_model.h"
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/eval/report.h>
#include <ziggurat/io/files.h>

namespace ziggurat::apps {

namespace {

std::vector<eval::Task> load_tasks(const EvalArguments& arguments) {
  std::vector<eval::Task> tasks;
  for (const std::string& name : arguments.tasks) {
    tasks.push_back(eval::load_task(name, {.data = arguments.data,
                                           .form = arguments.form,
                                           .limit = arguments.limit,
                                           .any_size = arguments.any_size}));
    for (size_t i = 0; i + 1 < tasks.size(); ++i) {
      check(tasks[i].name != tasks.back().name, ErrorKind::argument, "two tasks are called {}",
            tasks.back().name);
    }
  }
  return tasks;
}

void print_hash(const eval::Task& task) {
  const std::string hash = eval::request_hash(task);
  const bool whole = std::ssize(task.documents) == task.total_documents && !task.recorded_hash.empty();
  fmt::print("{} {} requests {}{}\n", task.name, eval::requests_of(task).size(), hash,
             !whole                       ? ""
             : hash == task.recorded_hash ? " (as lm-eval recorded it)"
                                          : " (lm-eval recorded " + task.recorded_hash + ")");
}

void write_requests(const std::vector<eval::Task>& tasks, const std::string& file) {
  std::string lines;
  for (const eval::Task& task : tasks) lines += eval::dump_requests(task);
  replace_file(file, lines);
}

// Says so now if what is computed for hours could not be written.
void check_writable(const std::filesystem::path& file) {
  if (file.empty()) return;
  check_replaceable(file, ErrorKind::argument);
  std::filesystem::path probe = file;
  probe += ".tmp";
  write_file(probe, std::string(size_t{1} << 16, ' '));  // a full disk takes an empty file
  std::filesystem::remove(probe);
}

void check_distinct(const std::vector<std::string>& files) {
  for (auto file = files.begin(); file != files.end(); ++file) {
    check(file->empty() || std::find(file + 1, files.end(), *file) == files.end(), ErrorKind::argument,
          "{} is to hold two things: give --output, --scores and --dump-requests a file each", *file);
  }
}

// The rounds of a task are the watchdog's steps: what takes several times as long as the longest so far
// hangs.
class Rounds {
 public:
  // Reading texts and making room for them takes as long as they are many, and so does the first round.
  void begin_task() {
    flight_log().begin_phase(Phase::evaluation, done_);
    longest_ = 0;
    since_round_.restart();
  }
  void end_round() {
    longest_ = std::max(longest_, since_round_.seconds());
    since_round_.restart();
    flight_log().set_usual_step(longest_);
    flight_log().begin_phase(Phase::step, ++done_);
  }
  int64_t done() const { return done_; }

 private:
  int64_t done_ = 0;
  double longest_ = 0;  // of this task, in seconds
  Timer since_round_;
};

void evaluate_on(MpiRuntime& mpi, const EvalArguments& arguments, std::vector<eval::Task> tasks) {
  Communicator& world = mpi.world();
  const model::InferenceLayout layout = layout_of(arguments.sharing);
  use_nodes(layout.ranks_per_node, layout.all_to_all, mpi, world);
  const bool int8 = arguments.weights == "int8";
  // Products of parts of a matrix have the bits of the whole one's only where it lies in panels.
  const bool cut = layout.tensor > 1 || layout.expert_slice > 1;
  TrainedModel trained(arguments.checkpoint, arguments.precision, arguments.tokenizer, arguments.average,
                       world, cut && !int8 ? WeightForm::panels : WeightForm::rows, layout, arguments.device);
  const train::RunConfig& config = trained.config();
  const int64_t length = arguments.max_length > 0 ? arguments.max_length : config.batch.sequence_length;
  check(length <= config.model.max_sequence, ErrorKind::argument,
        "--max-length: the model has {} positions, got {}", config.model.max_sequence, length);
  eval::Scorer scorer(trained.model(), trained.teams(),
                      {.length = length,
                       .batch_tokens = arguments.batch_tokens,
                       .copies = !cut && !int8 && arguments.device == Device::cpu});
  const eval::Subject subject{
      .model = trained.path(),
      .step = trained.step(),
      .weight_hash = trained.weight_hash(),
      .tokenizer = trained.tokenizer().fingerprint(),
      .precision = fmt::format("{}{}", to_string(train::compute_dtype(config.precision)),
                               int8 ? " with int8 weights" : ""),
      .length = length,
      .limit = arguments.limit};
  if (int8) trained.take_form(WeightForm::int8);  // after the hash of what the checkpoint has
  info("{} | step {} | weights {} | {} | up to {} tokens", subject.model, subject.step, subject.weight_hash,
       subject.precision, length);

  for (const eval::Task& task : tasks) {
    eval::check_task(task, arguments.form, trained.tokenizer(), length);
  }
  std::vector<eval::Evaluated> evaluated;
  Rounds rounds;
  for (eval::Task& task : tasks) {
    Progress progress(task.name, task.rule == eval::Rule::generated ? "texts" : "tokens");
    rounds.begin_task();
    const eval::TaskResult result =
        eval::evaluate(task, arguments.form, trained.tokenizer(), scorer, [&](int64_t done, int64_t total) {
          progress(done, total);
          rounds.end_round();
        });
    flight_log().begin_phase(Phase::evaluation, rounds.done());
    evaluated.push_back({std::move(task), result});
    if (world.rank() != 0 || arguments.output.empty()) continue;
    replace_file(arguments.output, eval::report(subject, arguments.form, evaluated).dump(2) + "\n");
  }
  if (world.rank() != 0) return;
  if (!arguments.scores.empty()) replace_file(arguments.scores, eval::score_lines(evaluated));
  std::fputs(eval::table(evaluated).c_str(), stdout);
}

}  // namespace

void eval(const EvalArguments& arguments) {
  const bool only_requests = arguments.request_hash || !arguments.dump_requests.empty();
  check(only_requests || !arguments.checkpoint.empty(), ErrorKind::argument,
        "expected a model with --checkpoint, or --request-hash or --dump-requests, which need none");
  check_distinct({arguments.output, arguments.scores, arguments.dump_requests});
  std::vector<eval::Task> tasks = load_tasks(arguments);
  if (launched_rank(std::getenv) == 0) {
    for (const eval::Task& task : tasks) {
      if (!task.note.empty()) warn("{} {}", task.name, task.note);
    }
    check_writable(arguments.output);
    check_writable(arguments.scores);
    check_writable(arguments.dump_requests);
    if (arguments.request_hash) {
      for (const eval::Task& task : tasks) print_hash(task);
    }
    if (!arguments.dump_requests.empty()) write_requests(tasks, arguments.dump_requests);
  }
  if (arguments.checkpoint.empty()) return;
  on_ranks(ranks_of(arguments.sharing, arguments.threads, arguments.device),
           [&](MpiRuntime& mpi) { evaluate_on(mpi, arguments, std::move(tasks)); });
}

}  // namespace ziggurat::apps
