#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include <fmt/ranges.h>

#include "train/saved_tensors.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/model/parameter_shapes.h>
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

namespace {

// The student's own folder is for the student's checkpoints.
void check_apart(const RunConfig& config, const std::string& checkpoint) {
  const std::filesystem::path its_run =
      std::filesystem::weakly_canonical(checkpoint).parent_path().parent_path();
  check(its_run != std::filesystem::weakly_canonical(config.output_folder()), ErrorKind::config,
        "distil.teacher: {} lies in the student's own folder {}, whose checkpoints are to be the student's: "
        "name another output, or another teacher",
        checkpoint, config.output_folder());
}

// With tensor parallelism the ranks cut the teacher as they cut the student.
void check_cuts(const RunConfig& config, const model::ModelConfig& teacher, const std::string& name) {
  const int tp = config.parallel.tensor;
  if (tp == 1) return;
  for (const model::CutSize& part : model::cut_sizes(teacher)) {
    check(
        part.size % tp == 0, ErrorKind::config,
        "parallel.tensor: {} ranks cut the teacher {} too, whose {} ({}) they cannot share evenly: choose a "
        "divisor of it, or parallel.tensor=1",
        tp, name, part.what, part.size);
  }
  check(
      teacher.padded_vocab() == config.model.padded_vocab(), ErrorKind::config,
      "parallel.tensor: ranks share the vocabulary of teacher and student alike, but {} pads it to {} rows, "
      "model.vocab_multiple to {}: set model.vocab_multiple={}, or parallel.tensor=1",
      name, teacher.padded_vocab(), config.model.padded_vocab(), teacher.vocab_multiple);
}

void check_model(const RunConfig& config, const RunConfig& teacher, const std::string& name) {
  check(teacher.model.vocab_size == config.model.vocab_size, ErrorKind::config,
        "distil.teacher: {} has a vocabulary of {} tokens, model.vocab_size is {}: a teacher and its student "
        "share one; name a teacher that was trained with this tokenizer",
        name, teacher.model.vocab_size, config.model.vocab_size);
  check(config.batch.sequence_length <= teacher.model.max_sequence, ErrorKind::config,
        "distil.teacher: {} reads at most {} tokens (its model.max_sequence), batch.sequence_length is {}",
        name, teacher.model.max_sequence, config.batch.sequence_length);
  const bool f64 = config.precision == Precision::fp64;
  check((teacher.precision == Precision::fp64) == f64, ErrorKind::config,
        "distil.teacher: {} was trained {} fp64, so its student is too: set precision", name,
        f64 ? "without" : "in");
  check_cuts(config, teacher.model, name);
}

void check_teacher_tokenizer(const std::string& name, const std::string& before, const std::string& now) {
  check(
      before.empty() || now.empty() || before == now, ErrorKind::config,
      "distil.teacher: {} was trained with another tokenizer ({:.12}) than that of data.train ({:.12}): its "
      "tokens mean something else; name a teacher of this tokenizer, or tokenize the data with the teacher's",
      name, before, now);
}

std::string tokenizer_of(const CheckpointReader& checkpoint) {
  return checkpoint.manifest().state.value("tokenizer", "");
}

// What is to be done where a parameter of the student's and the teacher's it begins as differ in shape.
std::string cure_of_shape(const std::string& name, const RunConfig& config,
                          const model::ModelConfig& teacher) {
  if (config.model.hidden != teacher.hidden) {
    return fmt::format(
        "a student that begins as layers is as wide as its teacher: set model.hidden={}, or "
        "leave out distil.init_layers",
        teacher.hidden);
  }
  if (name == "embed.position.weight") {
    return fmt::format("both learn as many positions: set model.max_sequence={}", teacher.max_sequence);
  }
  if (!name.starts_with("blocks.")) {
    return fmt::format("both pad the vocabulary alike: set model.vocab_multiple={}", teacher.vocab_multiple);
  }
  return "choose layers of the same kind and width";
}

void check_init_layers(const RunConfig& config, const model::ModelConfig& teacher,
                       const std::string& checkpoint) {
  const std::vector<int64_t>& layers = config.distil.init_layers;
  for (const int64_t layer : layers) {
    check(layer >= 0 && layer < teacher.layer_count(), ErrorKind::config,
          "distil.init_layers: expected layers of the teacher {}, 0 to {}, got {}", checkpoint,
          teacher.layer_count() - 1, layer);
  }
  const auto of_teacher = model::parameter_shapes(teacher);
  const std::map<std::string, Shape> its(of_teacher.begin(), of_teacher.end());
  for (const auto& [name, shape] : model::parameter_shapes(config.model)) {
    const auto found = its.find(name_in_teacher(name, layers));
    check(found != its.end(), ErrorKind::config,
          "distil.init_layers: {} would start as the teacher's {}, which it has not: {}", name,
          name_in_teacher(name, layers),
          name.starts_with("blocks.") ? "choose layers of the same kind"
                                      : "give the student the teacher's positions, norms and head");
    check(found->second == shape, ErrorKind::config,
          "distil.init_layers: {} is {}, the teacher's {} is {}: {}", name, shape, found->first,
          found->second, cure_of_shape(name, config, teacher));
  }
}

// As far as configs and manifests tell.
void check_teacher_config(const RunConfig& config, const RunConfig& teacher, const std::string& name) {
  check_model(config, teacher, name);
  check_cuts(config, teacher.model, name);
  if (!config.distil.init_layers.empty()) check_init_layers(config, teacher.model, name);
}

}  // namespace

void check_teacher(const RunConfig& config, const SampleSource& data) {
  const CheckpointReader checkpoint(config.distil.teacher);
  check_apart(config, checkpoint.path());
  check_teacher_config(config, config_of(checkpoint, config), checkpoint.path());
  const std::string before = tokenizer_of(checkpoint), now = data.tokenizer_sha256();
  check_teacher_tokenizer(checkpoint.path(), before, now);
  if (before.empty() != now.empty()) {
    warn("distil.teacher: {} was trained on {}, data.train is {}: do their tokens mean the same?",
         checkpoint.path(), before.empty() ? "the synthetic language" : "text",
         now.empty() ? "the synthetic language" : "text");
  }
}

bool check_present_teacher(const RunConfig& config, const std::string& tokenizer_sha256) {
  const objective::DistilConfig& distil = config.distil;
  const std::optional<RunConfig> teacher = teacher_of(config);
  if (!teacher) return false;
  if (!std::filesystem::exists(distil.teacher)) {
    check_teacher_config(config, *teacher, distil.teacher_config);
    return true;
  }
  std::optional<CheckpointReader> checkpoint;
  try {
    checkpoint.emplace(distil.teacher);
  } catch (const Error&) {  // it may have begun to train; else teacher_of() has thrown
    check_teacher_config(config, *teacher, distil.teacher_config);
    return true;
  }
  check_apart(config, checkpoint->path());
  check_teacher_config(config, *teacher, checkpoint->path());
  check_teacher_tokenizer(checkpoint->path(), tokenizer_of(*checkpoint), tokenizer_sha256);
  return true;
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
  check_teacher_config(config, config_of(checkpoint, config), checkpoint.path());
  if (training.groups.world().size() > 1) checkpoint.verify_together(training.groups.world());
  for (TensorSlice& slice : held_parameters(training.optimizer.state())) {
    slice.name = name_in_teacher(slice.name, layers);
    checkpoint.read(slice);
  }
  training.optimizer.state().publish(stream);
  info("the student starts as layers {} of {}", fmt::join(layers, ", "), checkpoint.path());
}

}  // namespace ziggurat::train
