#include <algorithm>
#include <map>

#include <fmt/format.h>

#include <ziggurat/config/units.h>
#include <ziggurat/ops/router.h>
#include <ziggurat/train/derived_figures.h>
#include <ziggurat/train/record_step.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {

using Figures = std::vector<std::pair<std::string, std::string>>;

std::string count_text(int64_t n) {
  return n < 10'000 ? fmt::format("{}", n) : fmt::format("{} ({})", n, format_count(static_cast<double>(n)));
}

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

// What a rank sends to others of its `ranks` in a collective whose input has so many bytes, by the best
// algorithm: a ring, or straight to each.
double bytes_sent(const WorkItem& item) {
  const double others = static_cast<double>(item.ranks - 1) / item.ranks;
  if (item.name == "all_reduce") return 2 * others * item.bytes;
  if (item.name == "all_gather") return (item.ranks - 1) * item.bytes;
  return others * item.bytes;
}

void add_experts(Figures& figures, const RunConfig& config) {
  const int64_t tokens = config.batch.micro_batch * config.batch.sequence_length;
  const moe::MoeConfig& moe = config.model.moe;
  std::map<int64_t, int> layers_with;
  for (const model::BlockSpec& layer : config.model.layers()) {
    if (layer.experts > 0) ++layers_with[layer.experts];
  }
  for (const auto& [experts, layers] : layers_with) {
    const double mean = static_cast<double>(tokens * moe.top_k) / static_cast<double>(experts);
    const std::string what =
        fmt::format("of {} experts ({} layer{}), one", experts, layers, layers == 1 ? "" : "s");
    std::string text = fmt::format("{:.1f} tokens of a micro-batch's {}", mean, tokens);
    if (moe.drop == moe::DropPolicy::none) {
      text += ", more where more choose it: nothing is dropped";
    } else {
      const ops::RouterArgs args{.top_k = moe.top_k,
                                 .capacity_rule = moe.capacity_rule,
                                 .capacity_factor = moe.capacity_factor,
                                 .min_capacity = moe.min_capacity};
      const int64_t room = ops::expert_capacity(args, moe.capacity_factor, tokens, experts);
      text += fmt::format(", room for {}: {}", room,
                          static_cast<double>(room) < mean
                              ? "fewer than come, so some are dropped however they are spread"
                              : fmt::format("{} of it spare when all get as many",
                                            percent(1 - mean / static_cast<double>(room))));
    }
    figures.emplace_back(what, text);
  }
}

void add_wire(Figures& figures, const RunConfig& config, int ranks) {
  const StepWork work = record_step(config, ranks);
  std::map<std::string, double> sent;  // by collective and group
  const auto add = [&](const std::vector<WorkItem>& items, double times) {
    for (const WorkItem& item : items) {
      if (item.kind != WorkItem::Kind::collective || item.ranks < 2) continue;
      sent[fmt::format("{} along {} ({} ranks)", item.name, item.along, item.ranks)] +=
          times * bytes_sent(item);
    }
  };
  add(work.first, 1);
  add(work.later, static_cast<double>(work.micro_batches - 1));
  add(work.reduction, 1);
  add(work.update, 1);
  double all = 0;
  for (const auto& [name, bytes] : sent) all += bytes;
  figures.emplace_back("a rank sends in a step", format_bytes(all));
  for (const auto& [name, bytes] : sent) figures.emplace_back("  " + name, format_bytes(bytes));
}

}  // namespace

Figures derived_figures(const RunConfig& config, int ranks) {
  if (ranks == 0) ranks = ranks_asked_for(config);
  check_for_ranks(config, ranks);
  const ParallelPlan layout = layout_of(config, ranks);
  const StepPlan step =
      plan_step(config, layout.dp().size, config.train.tokens / config.batch.sequence_length);
  const model::ModelConfig& m = config.model;
  const int64_t steps = total_steps(config), padding = m.padded_vocab() - m.vocab_size;

  Figures figures;
  figures.emplace_back("ranks", fmt::format("{}: {}", ranks, layout.str()));
  figures.emplace_back("steps", count_text(steps));
  figures.emplace_back("tokens of a step", count_text(step.tokens));
  figures.emplace_back("micro-batches of a step",
                       fmt::format("{}, {} a rank", step.micro_batches, step.micro_batches_per_rank));
  const auto share_of_run = [&](int64_t tokens) {
    const int64_t in_run = std::min(tokens, config.train.tokens);
    return fmt::format("{} steps, {} of the run", count_text((in_run + step.tokens - 1) / step.tokens),
                       percent(static_cast<double>(in_run) / static_cast<double>(config.train.tokens)));
  };
  figures.emplace_back("warm-up", share_of_run(config.optimizer.warmup_tokens));
  if (config.distil.enabled() && config.distil.weight.until > 0) {
    figures.emplace_back("with the whole weight of the teacher", share_of_run(config.distil.weight.until));
  }
  const int64_t every = config.checkpoint.every;
  figures.emplace_back("checkpoints",
                       every == 0 ? std::string("one, at the end") : count_text(steps / every));
  figures.emplace_back(
      "vocabulary",
      fmt::format("{} padded to {}: {} of the rows are never used", m.vocab_size, m.padded_vocab(),
                  percent(static_cast<double>(padding) / static_cast<double>(m.padded_vocab()))));
  add_experts(figures, config);
  if (ranks > 1) add_wire(figures, config, ranks);
  return figures;
}

}  // namespace ziggurat::train
