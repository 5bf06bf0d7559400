#include <algorithm>
#include <cmath>

#include <ziggurat/core/error.h>
#include <ziggurat/plan/step_time.h>

namespace ziggurat {

namespace {

using Kind = WorkItem::Kind;
double number(int64_t n) { return static_cast<double>(n); }

// How many of a group's ranks share a node with a given one of them, itself included.
int in_a_node(const RankAxis& axis, int ranks_per_node) {
  return std::clamp(ranks_per_node / axis.stride, 1, axis.size);
}

double collective_seconds(const WorkItem& item, const ClusterConfig& cluster, const RankAxis& axis) {
  const int near = in_a_node(axis, cluster.ranks_per_node);
  const auto ranks = static_cast<double>(axis.size), here = static_cast<double>(near);
  const bool leaves = near < axis.size;
  const double others = (ranks - 1) / ranks * item.bytes;
  const double latency = leaves ? cluster.between.latency : cluster.inside.latency;
  if (item.name == "all_to_all" || item.name == "all_to_all_v") {
    const double inside =
        item.bytes * (here - 1) / ranks / cluster.inside.bandwidth + (here - 1) * cluster.inside.latency;
    const double between = item.bytes * (ranks - here) / ranks / cluster.between.bandwidth +
                           (ranks - here) * cluster.between.latency;
    return std::max(inside, between / cluster.software.exchange_share);
  }
  // A ring enters and leaves a node once for each of its members there.
  const double once = std::max(near > 1 ? others / cluster.inside.bandwidth : 0,
                               leaves ? others / (here * cluster.between.bandwidth) : 0);
  const double trees = std::log2(ranks) * latency;
  if (item.name == "all_reduce") return 2 * once + 2 * trees;
  if (item.name == "all_gather") return ranks * once + trees;  // bytes are one rank's
  return once + trees;
}

double kernel_seconds(const WorkItem& item, const ClusterConfig& cluster) {
  const DeviceRoofs& device = cluster.device;
  double share = 1;
  if (item.kind == Kind::product) {
    share = device.product_share(std::cbrt(number(item.m) * number(item.n) * number(item.k)));
  } else if (item.kind == Kind::attention) {
    share = item.backward ? device.attention_backward : device.attention_forward;
  }
  const double busy =
      std::max(item.flops / (device.peak_flops * share), item.bytes / device.memory_bandwidth);
  return std::max(busy + device.start, cluster.software.host_gap);
}

bool exchanges_tokens(const WorkItem& item) { return item.name.starts_with("all_to_all"); }

const char* phase_of(const WorkItem& item) {
  switch (item.kind) {
    case Kind::product:
      return item.name == "grouped_linear" ? "experts"
             : item.name == "scores"       ? "attention"
             : item.name == "dispatch"     ? "dispatch"
                                           : "products";
    case Kind::attention:
      return "attention";
    case Kind::dispatch:
      return "dispatch";
    case Kind::memory:
      return item.name == "masks" ? "dispatch" : "memory-bound kernels";
    case Kind::collective:
      return exchanges_tokens(item) ? "all-to-all"
             : item.along == "tp"   ? "tensor-parallel sums"
                                    : "other collectives";
  }
  return "";
}

class Steps {
 public:
  Steps(const ClusterConfig& cluster, const ParallelPlan& layout) : cluster_(cluster), layout_(layout) {}

  // Seconds of all items, into their phases, or into `phase`.
  double run(const std::vector<WorkItem>& items, double times, const char* phase = nullptr) {
    double all = 0;
    for (const WorkItem& noted : items) {
      for (const WorkItem& item : as_done(noted, cluster_.software)) {
        const double seconds = times * seconds_of(item, cluster_, axis_of(item));
        PhaseTime& to = at(phase != nullptr ? phase : phase_of(item));
        to.seconds += seconds, to.flops += times * item.flops;
        all += seconds;
        if (item.kind == Kind::product) {
          roof_ +=
              times * item.flops /
              (cluster_.device.peak_flops *
               cluster_.device.product_share(std::cbrt(number(item.m) * number(item.n) * number(item.k))));
        }
      }
    }
    return all;
  }
  PhaseTime& at(const std::string& name) {
    const auto found =
        std::find_if(phases_.begin(), phases_.end(), [&](const PhaseTime& p) { return p.name == name; });
    return found != phases_.end() ? *found : phases_.emplace_back(PhaseTime{.name = name});
  }
  void hide(const char* phase, double seconds) {
    PhaseTime& p = at(phase);
    const double hidden = std::min(p.seconds, seconds);
    p.seconds -= hidden, p.hidden += hidden;
  }
  double products_at_roof() const { return roof_; }
  std::vector<PhaseTime> phases() const {
    std::vector<PhaseTime> some = phases_;
    std::erase_if(some, [](const PhaseTime& p) { return p.seconds == 0 && p.hidden == 0; });
    return some;
  }

 private:
  RankAxis axis_of(const WorkItem& item) const {
    if (item.kind != Kind::collective) return {};
    for (const RankAxis& axis : layout_.axes()) {
      if (axis.name == item.along) return axis;
    }
    if (item.ranks == layout_.world_size()) return {"world", layout_.world_size(), 1};
    return layout_.dp();  // noted by a job of dp alone, which calls it the world
  }

  const ClusterConfig& cluster_;
  const ParallelPlan& layout_;
  // In the order of the table.
  std::vector<PhaseTime> phases_{{"products"},
                                 {"experts"},
                                 {"attention"},
                                 {"dispatch"},
                                 {"memory-bound kernels"},
                                 {"tensor-parallel sums"},
                                 {"all-to-all"},
                                 {"other collectives"},
                                 {"gradient reduction"},
                                 {"optimizer"}};
  double roof_ = 0;
};

}  // namespace

void DeviceRoofs::validate(Problems& problems) const {
  for (size_t i = 1; i < products.size(); ++i) {
    if (products[i].size > products[i - 1].size) continue;
    problems.add(
        fmt::format("products.{}.size", i),
        fmt::format("expected above {}, the size before it, got {}", products[i - 1].size, products[i].size));
  }
}

double DeviceRoofs::product_share(double size) const {
  const auto above = std::find_if(products.begin(), products.end(),
                                  [&](const ProductEfficiency& p) { return p.size >= size; });
  if (above == products.begin()) return products.front().share;
  if (above == products.end()) return products.back().share;
  const ProductEfficiency &low = *(above - 1), &high = *above;
  const double way = std::log(size / low.size) / std::log(high.size / low.size);
  return low.share + way * (high.share - low.share);
}

double seconds_of(const WorkItem& item, const ClusterConfig& cluster, const RankAxis& axis) {
  if (item.kind != Kind::collective) return kernel_seconds(item, cluster);
  return axis.size == 1 ? 0 : collective_seconds(item, cluster, axis);
}

void check_ranks(const ClusterConfig& cluster, int ranks) {
  check(ranks <= cluster.ranks(), ErrorKind::config,
        "{} ranks are more than {} has: {} nodes of {}, {} in all; give --ranks {} or fewer, or a cluster of "
        "more nodes",
        ranks, cluster.name, cluster.nodes, cluster.ranks_per_node, cluster.ranks(), cluster.ranks());
}

StepTime time_of(const StepWork& work, const ClusterConfig& cluster, const ParallelPlan& layout) {
  check_ranks(cluster, layout.world_size());
  Steps steps(cluster, layout);
  steps.run(work.first, 1);
  if (work.micro_batches > 1) steps.run(work.later, number(work.micro_batches - 1));

  const double exchange = steps.at("all-to-all").seconds;
  if (cluster.software.hides_exchange) {
    // Of two halves, the first one's way there and the last one's way back have nothing to hide behind.
    steps.hide("all-to-all", std::min(exchange / 2, steps.at("experts").seconds));
  }
  std::vector<WorkItem> reduction = work.reduction;
  for (WorkItem& item : reduction) item.bytes *= cluster.software.gradient_bytes / 4.0;  // noted in f32
  steps.run(reduction, 1, "gradient reduction");
  if (cluster.software.bucket_copies) {
    // Into the bucket, scaled, and back: each reads and writes it (deepspeed/runtime/engine.py,
    // allreduce_bucket).
    for (WorkItem& item : reduction) item = {.name = "bucket", .backward = true, .bytes = 3 * 2 * item.bytes};
    steps.run(reduction, 1, "gradient reduction");
  }
  if (cluster.software.hides_gradients) {
    double backward = 0;
    for (const WorkItem& item : work.micro_batches > 1 ? work.later : work.first) {
      if (!item.backward || item.kind == Kind::collective) continue;
      for (const WorkItem& part : as_done(item, cluster.software)) backward += seconds_of(part, cluster, {});
    }
    steps.hide("gradient reduction", backward);
  }
  steps.run(work.update, 1, "optimizer");

  StepTime time{.phases = steps.phases()};
  for (const PhaseTime& phase : time.phases) time.seconds += phase.seconds;
  time.samples_per_second = work.samples / time.seconds;
  time.tokens_per_second = work.tokens / time.seconds;
  time.model_flops_per_second = work.model_flops / time.seconds / layout.world_size();
  time.share_of_peak = time.model_flops_per_second / cluster.device.peak_flops;
  time.products_at_roof = steps.products_at_roof() / time.seconds;
  return time;
}

}  // namespace ziggurat
