// ziggurat plan CONFIG --simulate CLUSTER: what a step of the run would take there, phase by phase.
#include <algorithm>
#include <functional>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/train/layout_search.h>
#include <ziggurat/train/record_step.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::apps {

namespace {

using Json = nlohmann::ordered_json;

Json json_of(const StepTime& time) {
  Json phases = Json::array();
  for (const PhaseTime& p : time.phases) {
    phases.push_back(
        {{"name", p.name}, {"seconds", p.seconds}, {"hidden_seconds", p.hidden}, {"flops", p.flops}});
  }
  return {{"seconds", time.seconds},
          {"samples_per_second", time.samples_per_second},
          {"tokens_per_second", time.tokens_per_second},
          {"model_flops_per_second_per_rank", time.model_flops_per_second},
          {"share_of_peak", time.share_of_peak},
          {"products_at_roof", time.products_at_roof},
          {"phases", phases}};
}

Json json_of(const train::Layout& l) {
  Json out = {{"ranks", l.ranks},
              {"expert_parallel", l.expert_parallel},
              {"tensor", l.tensor},
              {"zero", l.zero},
              {"micro_batch", l.micro_batch},
              {"recompute", l.recompute},
              {"memory", l.memory},
              {"fits", l.fits}};
  out.update(json_of(l.time));
  return out;
}

void print(const StepTime& time, int ranks) {
  fmt::print("  {:<24}{:>10}{:>8}{:>10}{:>16}\n", "phase", "ms", "share", "hidden", "TFLOP/s a rank");
  for (const PhaseTime& p : time.phases) {
    const double whole = p.seconds + p.hidden;
    fmt::print("  {:<24}{:>10.1f}{:>7.1f}%{:>10}{:>16}\n", p.name, 1e3 * p.seconds,
               100 * p.seconds / time.seconds, p.hidden > 0 ? fmt::format("{:.1f}", 1e3 * p.hidden) : "",
               p.flops > 0 ? fmt::format("{:.0f}", p.flops / whole / 1e12) : "");
  }
  fmt::print("  {:<24}{:>10.1f}\n", "step", 1e3 * time.seconds);
  fmt::print("{:.1f} samples/s, {:.0f} tokens/s ({:.0f} a rank of {})\n", time.samples_per_second,
             time.tokens_per_second, time.tokens_per_second / ranks, ranks);
  fmt::print("{:.1f} TFLOP/s a rank of the model's FLOPs, {:.1f} % of the data sheet\n",
             time.model_flops_per_second / 1e12, 100 * time.share_of_peak);
  fmt::print("products at their roof would take {:.1f} % of the step\n", 100 * time.products_at_roof);
}

void print(const std::vector<train::Layout>& layouts) {
  constexpr size_t kShown = 8;
  fmt::print("  {:>6}{:>5}{:>5}{:>6}{:>13}{:>11}{:>11}{:>12}\n", "ranks", "tp", "ep", "ZeRO", "micro-batch",
             "recompute", "memory", "samples/s");
  for (size_t i = 0; i < std::min(kShown, layouts.size()) && layouts[i].fits; ++i) {
    const train::Layout& l = layouts[i];
    fmt::print("  {:>6}{:>5}{:>5}{:>6}{:>13}{:>11}{:>11}{:>12.1f}\n", l.ranks, l.tensor, l.expert_parallel,
               l.zero, l.micro_batch, l.recompute ? "yes" : "no", format_bytes(l.memory),
               l.time.samples_per_second);
  }
}

// What of the config makes it the layout's, and what a run of it would still be refused for: the search asks
// about the full batch alone.
void print_changes(const train::RunConfig& config, const train::Layout& layout) {
  fmt::print(
      "the first of them: batch.micro_batch={} train.recompute={} parallel.tensor={} parallel.zero={}{}\n",
      layout.micro_batch, layout.recompute, layout.tensor, layout.zero,
      config.model.has_experts()
          ? fmt::format(", and in model.blocks expert_parallel: {} (where a layer has fewer experts, "
                        "their number)",
                        layout.expert_parallel)
          : "");
  try {
    train::check_for_ranks(train::with_layout(config, layout), layout.ranks);
  } catch (const Error& error) {
    fmt::print("it cannot start as it is: {}\n", error.what());
  }
}

void search(const PlanArguments& arguments, const train::RunConfig& config, const ClusterConfig& cluster,
            int ranks) {
  Progress progress("search", "layouts");
  const std::vector<train::Layout> layouts =
      train::search_layouts(config, cluster, ranks, std::ref(progress));
  const auto fitting =
      std::count_if(layouts.begin(), layouts.end(), [](const train::Layout& l) { return l.fits; });
  check(fitting > 0, ErrorKind::config,
        "none of {} layouts fits the {} of a device of {}, and the smallest takes {}: give --simulate a "
        "cluster with more ranks or memory, or make the model smaller",
        layouts.size(), format_bytes(cluster.device.memory), cluster.name,
        format_bytes(std::ranges::min(layouts, {}, &train::Layout::memory).memory));
  if (arguments.json) {
    Json all = Json::array();
    for (const train::Layout& layout : layouts) all.push_back(json_of(layout));
    return fmt::print("{}\n", Json{{"cluster", cluster.name}, {"layouts", all}}.dump(2));
  }
  fmt::print("{} on {}: {} of {} layouts fit its memory; the fastest\n", config.name, cluster.name, fitting,
             layouts.size());
  print(layouts);
  print_changes(config, layouts.front());
  print(layouts.front().time, layouts.front().ranks);
}

}  // namespace

void simulate(const PlanArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  train::check_trainable(config);
  ClusterConfig cluster;
  load_config(cluster, arguments.cluster);
  for (const train::Warning& warning : train::warnings_of(config)) {
    fmt::print(stderr, "warning: {}\n", train::to_string(warning));
  }
  const int ranks = arguments.ranks > 0 ? arguments.ranks : cluster.ranks();
  if (arguments.search) return search(arguments, config, cluster, ranks);
  const StepTime time = train::simulate_step(config, ranks, cluster);
  // Nothing plans the memory of matrices cut over ranks.
  const double memory = cluster.software.tensor_parallel == 1 ? train::device_memory(config, ranks) : 0;
  const bool fits = memory <= cluster.device.memory;
  if (arguments.json) {
    Json out = {{"cluster", cluster.name}, {"ranks", ranks}};
    if (memory > 0) out.update({{"memory", memory}, {"fits", fits}});
    out.update(json_of(time));
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} on {} ranks of {}: a step\n", config.name, ranks, cluster.name);
  print(time, ranks);
  if (memory == 0) return;
  fmt::print("{} of a device's {}{}\n", format_bytes(memory), format_bytes(cluster.device.memory),
             fits ? "" : ": does not fit, so this is no run; --search finds what does");
}

}  // namespace ziggurat::apps
