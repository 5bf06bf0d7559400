// ziggurat plan CONFIG: what a run will be, without running it.
#include <algorithm>
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/prompt_sampler.h"
#include "apps/task_evaluator.h"
#include <ziggurat/config/config.h>
#include <ziggurat/model/model_config.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/loaded_model.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::apps {

namespace {

std::string grouped(int64_t n) {  // 1,315,819,520
  std::string digits = std::to_string(n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

// That a teacher sees.
int64_t distilled_tokens(const train::RunConfig& config) {
  const objective::DistilWeightConfig& weight = config.distil.weight;
  if (weight.until == 0) return config.train.tokens;
  const int64_t end = weight.then == objective::AfterUntil::zero ? weight.until
                      : weight.end > 0                           ? weight.end
                                                                 : config.train.tokens;
  return std::min(end, config.train.tokens);
}

std::string tokens_text(int64_t n) { return format_count(double(n)) + " tokens"; }

void line(const std::string& what, const std::string& value) { fmt::print("  {:<28} {}\n", what, value); }

// Axes of one rank have no groups to tell.
nlohmann::ordered_json json_of(const ParallelPlan& layout) {
  nlohmann::ordered_json groups = nlohmann::ordered_json::object();
  for (const RankAxis& axis : layout.axes()) {
    if (axis.size > 1) groups[axis.name] = axis.groups(layout.world_size());
  }
  return groups;
}

nlohmann::ordered_json json_of(const std::vector<train::RankClass>& classes, bool on_gpu, int64_t texts) {
  nlohmann::ordered_json all;
  for (const train::RankClass& c : classes) {
    all.push_back({{"ranks", c.ranks},
                   {"parameters", c.memory.local_parameters},
                   {"memory", on_gpu ? c.memory.without_process() + texts : c.memory.total()}});
  }
  return all;
}

// "  ep 4    [0..3] [4..7]"
void print_groups(const ParallelPlan& layout) {
  constexpr size_t kShown = 3;
  const auto print = [&](const char* name, const RankAxis& axis) {
    if (axis.size > 1) {
      line(fmt::format("  {} {}", name, axis.size), groups_text(axis, layout.world_size(), kShown));
    }
  };
  for (const auto& axis : {layout.dp(), layout.tp(), layout.cp(), layout.pp()})
    print(axis.name.c_str(), axis);
  for (const int ep : layout.ep_sizes()) {
    print("ep", layout.ep(ep));
    print("expert-dp", layout.expert_dp(ep));
  }
  print("expert-tp", layout.expert_tp());
}

// Of a GPU, for texts that a run scores and writes beside training (eval.tasks, eval.prompts); 0 where their
// files are not here.
int64_t bytes_of_texts(const train::RunConfig& config, int world) {
  if (config.device != Device::cuda || (config.eval.tasks.empty() && config.eval.prompts.empty())) return 0;
  const train::LoadedModel dry(config, ProcessGroups::planned(train::layout_of(config, world), 0),
                               {.device = meta_of(config.device), .reproducible = config.reproducible});
  int64_t bytes = 0;
  try {
    const auto self = make_self_communicator();
    if (!config.eval.tasks.empty()) bytes = TaskEvaluator(config, *self).device_bytes(dry.model());
    if (!config.eval.prompts.empty()) {
      bytes = std::max(bytes, PromptSampler(config).device_bytes(dry.model()));
    }
  } catch (const Error& error) {
    fmt::print(stderr, "note: the memory of eval.tasks and eval.prompts is not counted: {}\n", error.what());
  }
  return bytes;
}

}  // namespace

void plan(const PlanArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  train::check_trainable(config);
  for (const std::string& path : train::check_present_data(config)) {
    fmt::print(stderr, "note: {} is not on this machine, so it was not looked at\n", path);
  }
  const std::optional<train::RunConfig> teacher =
      config.distil.enabled() ? train::teacher_of(config) : std::nullopt;
  if (config.distil.enabled() && !teacher) {
    const std::string& its_config = config.distil.teacher_config;
    fmt::print(stderr, "note: the teacher is not counted: {}\n",
               its_config.empty() ? "name the config that it is trained by with distil.teacher_config"
                                  : "distil.teacher_config: " + its_config + " is not on this machine");
  }
  for (const train::Warning& warning : train::warnings_of(config)) {
    fmt::print(stderr, "warning: {}\n", train::to_string(warning));
  }
  const int world = arguments.ranks > 0 ? arguments.ranks : train::ranks_asked_for(config);
  train::check_for_ranks(config, world);

  const ParallelPlan layout = train::layout_of(config, world);
  const model::ModelCounts counts = model::count(config.model, config.batch.sequence_length);
  // As a run on this machine would have: some scratch is per thread.
  assume_thread_count(config.threads > 0 ? config.threads : available_cores() / world);
  const std::vector<train::RankClass> classes = train::plan_every_rank(config, world);
  const train::MemoryPlan& memory = classes.front().memory;
  check(memory.global_parameters == counts.parameters, ErrorKind::internal,
        "[plan] the formula counts {} parameters, the model has {}", counts.parameters,
        memory.global_parameters);
  const train::StepPlan full =
      train::plan_step(config, layout.dp().size, config.train.tokens / config.batch.sequence_length);
  const int64_t steps = train::total_steps(config);
  const int64_t texts = bytes_of_texts(config, world);

  const bool on_gpu = config.device == Device::cuda;
  if (arguments.json) {
    const nlohmann::ordered_json out = {
        {"parameters", counts.parameters},
        {"active_parameters", counts.active_parameters},
        {"expert_parameters", counts.expert_parameters},
        {"flops_per_token", counts.flops_per_token},
        {"ranks", world},
        {"parameters_per_rank", memory.local_parameters},
        {"samples_per_step", full.samples},
        {"tokens_per_step", full.tokens},
        {"steps", steps},
        {"device", to_string(config.device)},
        {"memory_per_rank", on_gpu ? memory.without_process() + texts : memory.total()},
        {"rank_classes", json_of(classes, on_gpu, texts)},
        {"groups", json_of(layout)}};
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} ({})\n", config.name, arguments.config.path);
  fmt::print("model\n");
  line("parameters",
       fmt::format("{} ({})", grouped(counts.parameters), format_count(double(counts.parameters))));
  line("  in experts", grouped(counts.expert_parameters));
  line("  read for one token", grouped(counts.active_parameters));
  line("FLOPs per token", fmt::format("{:.4g} (forward and backward)", counts.flops_per_token));
  if (teacher) {
    const model::ModelCounts its = model::count(teacher->model, config.batch.sequence_length);
    line("teacher", fmt::format("{}: {} parameters", teacher->model.name, grouped(its.parameters)));
    line("  FLOPs per token", fmt::format("{:.4g} (forward), for {}", its.flops_per_token / 3,
                                          tokens_text(distilled_tokens(config))));
  }
  fmt::print("run\n");
  line("layout", layout.str());
  print_groups(layout);
  line("samples per step", grouped(full.samples));
  line("tokens per step", grouped(full.tokens));
  line("micro-batches per step",
       fmt::format("{}, {} a rank", full.micro_batches, full.micro_batches_per_rank));
  line(fmt::format("steps for {} tokens", format_count(double(config.train.tokens))), grouped(steps));
  const double teachers = teacher
                              ? model::count(teacher->model, config.batch.sequence_length).flops_per_token /
                                    3 * double(distilled_tokens(config))
                              : 0;
  line("FLOPs in all",
       fmt::format("{:.4g}", counts.flops_per_token * double(config.train.tokens) + teachers));
  const auto alike = classes.front().ranks.size();
  fmt::print("{} of rank 0{}\n", on_gpu ? "GPU memory" : "memory",
             alike == 1 ? "" : fmt::format(", and of {} others", alike - 1));
  line("parameters held", grouped(memory.local_parameters));
  const auto bytes = [](const char* what, int64_t n) { line(what, format_bytes(double(n))); };
  bytes("values", memory.values);
  bytes("masters", memory.masters);
  if (!on_gpu) bytes("packed weights", memory.packed_weights);
  bytes("gradients", memory.gradients);
  bytes("moments", memory.moments);
  if (config.distil.enabled()) bytes("teacher", memory.teacher);
  bytes("activations", memory.activations);
  bytes("activation gradients", memory.activation_gradients);
  bytes("workspace", memory.workspace);
  if (!on_gpu) {
    bytes("copy of a checkpoint", memory.staged);
    bytes("code and libraries", memory.process);
    return bytes("total", memory.total());
  }
  if (memory.graphs > 0) bytes("recorded micro-batches", memory.graphs);
  if (memory.spare > 0) bytes("spare, for uneven routing", memory.spare);
  if (texts > 0) bytes("texts, while they are there", texts);
  line("total",
       format_bytes(double(memory.without_process() + texts)) + ", and some hundred MiB of CUDA's own");
  fmt::print("host memory of rank 0\n");
  bytes("copy of a checkpoint", memory.staged);
  line("code and libraries", format_bytes(double(memory.process)) + ", and CUDA's own");
}

}  // namespace ziggurat::apps
