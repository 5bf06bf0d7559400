#include <algorithm>
#include <charconv>
#include <filesystem>

#include <fmt/ranges.h>

#include "train/saved_tensors.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/objective/distillation.h>
#include <ziggurat/objective/next_token.h>
#include <ziggurat/train/loaded_model.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

namespace {

// What a run's config says of its model, as a teacher of `student`: cut as that is, its experts shared by all
// ranks, however it was trained, and with no balance over ranks to keep.
RunConfig as_teacher(RunConfig config, const RunConfig& student) {
  const objective::TeacherPrecision precision = student.distil.precision;
  if (precision == objective::TeacherPrecision::bf16) config.precision = Precision::bf16;
  if (precision == objective::TeacherPrecision::fp32) config.precision = Precision::fp32;
  config.model.moe.balance_scope = moe::BalanceScope::micro_batch;
  config.parallel.tensor = student.parallel.tensor;
  config.parallel.expert_tensor = 1;
  return config;
}

RunConfig config_of(const CheckpointReader& checkpoint, const RunConfig& student) {
  RunConfig config;
  parse_config(config, checkpoint.manifest().config, checkpoint.path());
  return as_teacher(std::move(config), student);
}

class LoadedTeacher final : public objective::Teacher {
 public:
  LoadedTeacher(const RunConfig& config, ProcessGroups groups, const LoadOptions& options)
      : model_(config, std::move(groups), options) {}

  void load(CheckpointReader& checkpoint) {
    model_.load(checkpoint);
    hash_ = model_.weight_hash(&checkpoint);
  }
  const model::Gpt& model() const override { return model_.model(); }
  const std::string& weight_hash() const override { return hash_; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const nn::ParamGroup& group : model_.weights().groups()) bytes += group.values.bytes();
    return bytes;
  }

 private:
  LoadedModel model_;
  std::string hash_;
};

LoadOptions options_of(const RunConfig& config, Device device) {
  return {.device = device, .reproducible = config.reproducible, .low_memory = true};
}

std::unique_ptr<objective::Teacher> load(const RunConfig& config, Communicator& world, Device device) {
  CheckpointReader checkpoint(config.distil.teacher);
  const RunConfig its = config_of(checkpoint, config);
  auto teacher = std::make_unique<LoadedTeacher>(its, ProcessGroups(world, layout_of(its, world.size())),
                                                 options_of(config, device));
  teacher->load(checkpoint);
  info("teacher: {}, {} parameters, {} a rank", checkpoint.path(),
       format_count(static_cast<double>(model::count(its.model, config.batch.sequence_length).parameters)),
       format_bytes(static_cast<double>(teacher->bytes())));
  return teacher;
}

std::unique_ptr<objective::Teacher> planned(const RunConfig& config, const ProcessGroups& groups,
                                            Device device) {
  const std::optional<RunConfig> its = teacher_of(config);
  if (!its) return nullptr;
  const int ranks = groups.plan().world_size();
  return std::make_unique<LoadedTeacher>(
      *its, ProcessGroups::planned(layout_of(*its, ranks), groups.world().rank()),
      options_of(config, device));
}

// "blocks.3.mlp.up.weight" of the student, as the teacher names it.
std::string name_in_teacher(const std::string& name, const std::vector<int64_t>& layers) {
  constexpr std::string_view kBlocks = "blocks.";
  if (!name.starts_with(kBlocks)) return name;
  size_t layer = 0;
  const char* const begin = name.data() + kBlocks.size();
  const auto end = std::from_chars(begin, name.data() + name.size(), layer).ptr;
  return fmt::format("{}{}{}", kBlocks, layers.at(layer), std::string(end));
}

}  // namespace

std::unique_ptr<objective::Objective> make_objective(const RunConfig& config, const ProcessGroups& groups,
                                                     const model::Gpt& model, Device device) {
  if (!config.distil.enabled()) return std::make_unique<objective::NextToken>(model, config.objective);
  const auto get_teacher = [config, &groups, device]() -> std::unique_ptr<objective::Teacher> {
    return is_meta(device) ? planned(config, groups, device) : load(config, groups.world(), device);
  };
  return std::make_unique<objective::Distillation>(model, config.objective, config.distil,
                                                   config.train.tokens, get_teacher, device);
}

std::optional<RunConfig> teacher_of(const RunConfig& config) {
  const objective::DistilConfig& distil = config.distil;
  if (std::filesystem::exists(distil.teacher)) {
    try {
      return config_of(CheckpointReader(distil.teacher), config);
    } catch (const Error&) {  // it may have begun to train
      if (distil.teacher_config.empty()) throw;
    }
  }
  if (distil.teacher_config.empty() || !std::filesystem::exists(distil.teacher_config)) return {};
  RunConfig its;
  load_config(its, distil.teacher_config, {});
  return as_teacher(std::move(its), config);
}

void check_teacher(const RunConfig& config, const SampleSource& data) {
  const CheckpointReader checkpoint(config.distil.teacher);
  const RunConfig its = config_of(checkpoint, config);
  const model::ModelConfig &teacher = its.model, &student = config.model;
  const std::filesystem::path its_run =
      std::filesystem::weakly_canonical(checkpoint.path()).parent_path().parent_path();
  check(its_run != std::filesystem::weakly_canonical(config.output_folder()), ErrorKind::config,
        "distil.teacher: {} lies in the student's own folder {}, whose checkpoints are to be the student's: "
        "name another output, or another teacher",
        checkpoint.path(), config.output_folder());
  check(teacher.vocab_size == student.vocab_size, ErrorKind::config,
        "distil.teacher: {} has a vocabulary of {} tokens, model.vocab_size is {}: a teacher and its student "
        "share "
        "one; name a teacher that was trained with this tokenizer",
        checkpoint.path(), teacher.vocab_size, student.vocab_size);
  const std::string before = checkpoint.manifest().state.value("tokenizer", ""),
                    now = data.tokenizer_sha256();
  check(
      before.empty() || now.empty() || before == now, ErrorKind::config,
      "distil.teacher: {} was trained with another tokenizer ({:.12}) than that of data.train ({:.12}): its "
      "tokens mean something else; name a teacher of this tokenizer, or tokenize the data with the teacher's",
      checkpoint.path(), before, now);
  if (before.empty() != now.empty()) {
    warn("distil.teacher: {} was trained on {}, data.train is {}: do their tokens mean the same?",
         checkpoint.path(), before.empty() ? "the synthetic language" : "text",
         now.empty() ? "the synthetic language" : "text");
  }
  if (const int tp = config.parallel.tensor; tp > 1) {
    for (const model::CutSize& part : model::cut_sizes(teacher)) {
      check(part.size % tp == 0, ErrorKind::config,
            "parallel.tensor: {} ranks cut the teacher {} too, whose {} ({}) they cannot share evenly: "
            "choose a "
            "divisor of it, or parallel.tensor=1",
            tp, checkpoint.path(), part.what, part.size);
    }
    check(teacher.padded_vocab() == student.padded_vocab(), ErrorKind::config,
          "parallel.tensor: ranks share the vocabulary of teacher and student alike, but {} pads it to {} "
          "rows, "
          "model.vocab_multiple to {}: set model.vocab_multiple={}, or parallel.tensor=1",
          checkpoint.path(), teacher.padded_vocab(), student.padded_vocab(), teacher.vocab_multiple);
    check(teacher.qk_norm != nn::QkNorm::width, ErrorKind::config,
          "parallel.tensor: {} normalises queries and keys over the heads of all ranks (qk_norm width): use "
          "parallel.tensor=1",
          checkpoint.path());
  }
  check(config.batch.sequence_length <= teacher.max_sequence, ErrorKind::config,
        "distil.teacher: {} reads at most {} tokens (its model.max_sequence), batch.sequence_length is {}",
        checkpoint.path(), teacher.max_sequence, config.batch.sequence_length);
  const bool f64 = config.precision == Precision::fp64;
  check((its.precision == Precision::fp64) == f64, ErrorKind::config,
        "distil.teacher: {} was trained {} fp64, so its student is too: set precision", checkpoint.path(),
        f64 ? "without" : "in");
}

double teacher_flops(const Training& training, const RunConfig& config) {
  const objective::Teacher* const teacher = training.objective->teacher();
  if (teacher == nullptr) return 0;
  // Forward is a third of what is counted as forward and backward.
  return model::count(teacher->model().config(), config.batch.sequence_length).flops_per_token / 3;
}

void start_from_teacher(const RunConfig& config, Training& training, Stream& stream) {
  const std::vector<int64_t>& layers = config.distil.init_layers;
  CheckpointReader checkpoint(config.distil.teacher);
  const model::ModelConfig teacher = config_of(checkpoint, config).model;
  for (const int64_t layer : layers) {
    check(layer >= 0 && layer < teacher.layer_count(), ErrorKind::config,
          "distil.init_layers: expected layers of the teacher, 0 to {}, got {}", teacher.layer_count() - 1,
          layer);
  }
  if (training.groups.world().size() > 1) checkpoint.verify_together(training.groups.world());
  const std::vector<std::string> names = checkpoint.names();
  for (TensorSlice& slice : held_parameters(training.optimizer.state())) {
    const std::string name = name_in_teacher(slice.name, layers);
    check(
        std::find(names.begin(), names.end(), name) != names.end(), ErrorKind::config,
        "distil.init_layers: {} would start as the teacher's {}, which it has not: choose layers of the same "
        "kind",
        slice.name, name);
    const Shape& shape = checkpoint.tensor(name).shape;
    check(shape == slice.global_shape, ErrorKind::config,
          "distil.init_layers: {} is {}, the teacher's {} is {}: choose layers of the same kind and width",
          slice.name, slice.global_shape, name, shape);
    slice.name = name;
    checkpoint.read(slice);
  }
  training.optimizer.state().publish(stream);
  info("the student starts as layers {} of {}", fmt::join(layers, ", "), checkpoint.path());
}

}  // namespace ziggurat::train
