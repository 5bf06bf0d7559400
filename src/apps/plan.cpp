// ziggurat plan CONFIG: what a run will be, without running it.
#include <algorithm>
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include <ziggurat/config/config.h>
#include <ziggurat/model/model_config.h>
#include <ziggurat/plan/parallel_plan.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::apps {

namespace {

std::string grouped(int64_t n) {  // 1,315,819,520
  std::string digits = std::to_string(n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

void line(const char* what, const std::string& value) { fmt::print("  {:<28} {}\n", what, value); }

}  // namespace

void plan(const PlanArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  train::check_trainable(config);
  for (const std::string& path : train::check_present_data(config)) {
    fmt::print(stderr, "note: {} is not on this machine, so it was not looked at\n", path);
  }
  for (const train::Warning& warning : train::warnings_of(config)) {
    fmt::print(stderr, "warning: {}\n", train::to_string(warning));
  }
  const std::vector<int> sizes = config.model.expert_parallel_sizes();
  const int world = arguments.ranks > 0 ? arguments.ranks
                    : sizes.empty()     ? 1
                                        : *std::max_element(sizes.begin(), sizes.end());
  train::check_for_ranks(config, world);

  const ParallelPlan layout(world, model::fit_to_ranks(config.model, world).expert_parallel_sizes());
  const model::ModelCounts counts = model::count(config.model, config.batch.sequence_length);
  // As a run on this machine would have: some scratch is per thread.
  assume_thread_count(config.threads > 0 ? config.threads : available_cores() / world);
  const train::MemoryPlan memory = train::plan_memory(config, world);
  check(memory.global_parameters == counts.parameters, ErrorKind::internal,
        "[plan] the formula counts {} parameters, the model has {}", counts.parameters,
        memory.global_parameters);
  const train::StepPlan full =
      train::plan_step(config, world, config.train.tokens / config.batch.sequence_length);
  const int64_t steps = train::total_steps(config);

  if (arguments.json) {
    const nlohmann::ordered_json out = {{"parameters", counts.parameters},
                                        {"active_parameters", counts.active_parameters},
                                        {"expert_parameters", counts.expert_parameters},
                                        {"flops_per_token", counts.flops_per_token},
                                        {"ranks", world},
                                        {"parameters_per_rank", memory.local_parameters},
                                        {"samples_per_step", full.samples},
                                        {"tokens_per_step", full.tokens},
                                        {"steps", steps},
                                        {"memory_per_rank", memory.total()}};
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} ({})\n", config.name, arguments.config.path);
  fmt::print("model\n");
  line("parameters",
       fmt::format("{} ({})", grouped(counts.parameters), format_count(double(counts.parameters))));
  line("  in experts", grouped(counts.expert_parameters));
  line("  read for one token", grouped(counts.active_parameters));
  line("FLOPs per token", fmt::format("{:.4g} (forward and backward)", counts.flops_per_token));
  fmt::print("run\n");
  line("layout", layout.str());
  line("samples per step", grouped(full.samples));
  line("tokens per step", grouped(full.tokens));
  line("micro-batches per step",
       fmt::format("{}, {} a rank", full.micro_batches, full.micro_batches_per_rank));
  line(fmt::format("steps for {} tokens", format_count(double(config.train.tokens))).c_str(), grouped(steps));
  line("FLOPs in all", fmt::format("{:.4g}", counts.flops_per_token * double(config.train.tokens)));
  fmt::print("memory of rank 0\n");
  line("parameters held", grouped(memory.local_parameters));
  const auto bytes = [](const char* what, int64_t n) { line(what, format_bytes(double(n))); };
  bytes("masters", memory.masters);
  bytes("compute copies", memory.compute_copies);
  bytes("packed weights", memory.packed_weights);
  bytes("gradients", memory.gradients);
  bytes("moments", memory.moments);
  bytes("activations", memory.activations);
  bytes("activation gradients", memory.activation_gradients);
  bytes("workspace", memory.workspace);
  bytes("code and libraries", memory.process);
  bytes("total", memory.total());
}

}  // namespace ziggurat::apps
