#include <algorithm>
#include <bit>
#include <numeric>

#include <ziggurat/core/error.h>
#include <ziggurat/plan/parallel_plan.h>

namespace ziggurat {
namespace {

// The nearest values below and above `wanted` that pass, up to `limit`: "2 or 4".
template <class Passes>
std::string nearest(int64_t wanted, int64_t limit, const Passes& passes) {
  std::string text;
  const auto add = [&](int64_t value) { text += (text.empty() ? "" : " or ") + std::to_string(value); };
  for (int64_t below = std::min(wanted - 1, limit); below >= 1; --below) {
    if (passes(below)) {
      add(below);
      break;
    }
  }
  for (int64_t above = std::max<int64_t>(wanted + 1, 1); above <= limit; ++above) {
    if (passes(above)) {
      add(above);
      break;
    }
  }
  return text;
}

std::string nearest_multiples(int64_t wanted, int64_t of) {
  return nearest(wanted, wanted + of, [of](int64_t value) { return value % of == 0; });
}

}  // namespace

std::vector<int> RankAxis::members(int rank) const {
  std::vector<int> members;
  for (int i = 0; i < size; ++i) members.push_back(first(rank) + i * stride);
  return members;
}

std::vector<std::vector<int>> RankAxis::groups(int world_size) const {
  std::vector<std::vector<int>> groups;
  for (int rank = 0; rank < world_size; ++rank) {
    if (first(rank) == rank) groups.push_back(members(rank));
  }
  return groups;
}

std::string groups_text(const RankAxis& axis, int world_size, size_t shown) {
  const auto text_of = [&](const std::vector<int>& members) {
    if (axis.size > 1 && axis.stride == 1) return fmt::format("[{}..{}]", members.front(), members.back());
    if (axis.size <= 4) return fmt::format("[{}]", fmt::join(members, ","));
    return fmt::format("[{},{},..,{}]", members[0], members[1], members.back());
  };
  const std::vector<std::vector<int>> groups = axis.groups(world_size);
  std::string text;
  for (size_t i = 0; i < groups.size(); ++i) {
    const bool last = i + 1 == groups.size();
    if (i >= shown && !last) continue;
    text += (i == 0 ? "" : i > shown ? " ... " : " ") + text_of(groups[i]);
  }
  return text;
}

ParallelPlan::ParallelPlan(int world_size, std::vector<int> ep_sizes, AxisSizes sizes)
    : world_size_(world_size), ep_sizes_(std::move(ep_sizes)), tokens_alike_(sizes.tokens_alike) {
  check(world_size >= 1, ErrorKind::config, "[plan] a job has at least 1 rank, got {}", world_size);
  const std::pair<const char*, int> given[] = {{"tensor", sizes.tp},
                                               {"context", sizes.cp},
                                               {"pipeline", sizes.pp},
                                               {"expert-tensor", sizes.expert_tp}};
  for (const auto& [axis, size] : given) {
    check(size >= 1, ErrorKind::config, "[plan] a {}-parallel size is at least 1, got {}", axis, size);
  }
  const int64_t together = int64_t{sizes.tp} * sizes.cp * sizes.pp;
  check(world_size % together == 0, ErrorKind::config,
        "[plan] tensor, context and pipeline parallelism ({} x {} x {}) do not divide the {} ranks of this "
        "job: start {} ranks, or make them smaller",
        sizes.tp, sizes.cp, sizes.pp, world_size, nearest_multiples(world_size, together));
  const int stage = world_size / sizes.pp;
  check(stage % sizes.expert_tp == 0, ErrorKind::config,
        "[plan] expert-tensor-parallel size {} (parallel.expert_tensor) does not divide the {} ranks of a "
        "pipeline stage: set it to {}, or start {} ranks",
        sizes.expert_tp, stage,
        nearest(sizes.expert_tp, stage, [&](int64_t value) { return stage % value == 0; }),
        nearest_multiples(world_size, int64_t{sizes.pp} * sizes.expert_tp));
  const int inner = sizes.tp * sizes.cp;
  axes_ = {{"tp", sizes.tp, 1},
           {"cp", sizes.cp, sizes.tp},
           {"dp", stage / inner, inner},
           {"pp", sizes.pp, stage},
           {"expert_tp", sizes.expert_tp, 1}};

  const int sharing = stage / sizes.expert_tp;  // ranks that ep and expert-dp are cut from
  std::sort(ep_sizes_.begin(), ep_sizes_.end());
  ep_sizes_.erase(std::unique(ep_sizes_.begin(), ep_sizes_.end()), ep_sizes_.end());
  for (const int ep : ep_sizes_) {
    const auto divides_them = [&](int64_t value) { return sharing % value == 0; };
    check(ep >= 1, ErrorKind::config, "[plan] an expert-parallel size is at least 1, got {}", ep);
    check(
        divides_them(ep), ErrorKind::config,
        "[plan] expert-parallel size {} does not divide the {} ranks of {}: set it to {}, or start {} ranks",
        ep, sharing,
        sharing == world_size ? "this job" : "a pipeline stage and a place along expert-tensor parallelism",
        nearest(ep, sharing, divides_them),
        nearest_multiples(world_size, int64_t{ep} * (world_size / sharing)));
    axes_.push_back({fmt::format("ep{}", ep), ep, sizes.expert_tp});
    axes_.push_back({fmt::format("expert_dp{}", ep), sharing / ep, sizes.expert_tp * ep});
  }
  if (tokens_alike_) add_exchanges(sizes);
}

void ParallelPlan::add_exchanges(const AxisSizes& sizes) {
  const int most = std::max(sizes.tp, sizes.expert_tp), least = std::min(sizes.tp, sizes.expert_tp);
  check(
      most % least == 0, ErrorKind::config,
      "[plan] of the ranks that share each matrix ({}) and those that share an expert's ({}) one must divide "
      "the other: set the second to {}",
      sizes.tp, sizes.expert_tp, sizes.tp);
  axes_.push_back({"fold", most / least, least});
  for (const int ep : ep_sizes_) {
    check(
        ep * sizes.expert_tp % most == 0, ErrorKind::config,
        "[plan] {} ranks share the experts of a layer, each whole, but {} share every other matrix, and some "
        "of these would hold the same experts: share each expert's matrices too, over {} ranks, or more "
        "experts",
        ep, sizes.tp, sizes.tp / std::gcd(ep, sizes.tp));
    axes_.push_back({fmt::format("exchange{}", ep), ep * sizes.expert_tp / most, most});
  }
}

size_t ParallelPlan::number_of(int ep) const {
  const auto found = std::lower_bound(ep_sizes_.begin(), ep_sizes_.end(), ep);
  if (found == ep_sizes_.end() || *found != ep) {
    fail(ErrorKind::internal, "[plan] expert-parallel size {} was not planned: {}", ep, str());
  }
  return static_cast<size_t>(found - ep_sizes_.begin());
}

IndexRange ParallelPlan::experts_of(int rank, int64_t num_experts, int ep) const {
  check(0 <= rank && rank < world_size_, ErrorKind::internal, "[plan] rank {} of {} ranks", rank,
        world_size_);
  const int place = this->ep(ep).place(rank), sharing = ep * expert_dp(ep).size;
  const auto divides_both = [&](int64_t value) { return num_experts % value == 0 && sharing % value == 0; };
  check(num_experts >= 1, ErrorKind::config, "[plan] a layer of experts has at least 1, got {}", num_experts);
  check(
      num_experts % ep == 0, ErrorKind::config,
      "[plan] {} experts can't be cut over expert-parallel size {}: set the size to {}, or the experts to {}",
      num_experts, ep, nearest(ep, sharing, divides_both), nearest_multiples(num_experts, ep));
  const int64_t local = num_experts / ep;
  return {place * local, (place + 1) * local};
}

std::string ParallelPlan::str() const {
  std::string text = fmt::format("{} ranks", world_size_);
  if (dp().size != world_size_) {
    text += fmt::format("; dp {}", dp().size);
    for (const RankAxis& axis : {tp(), cp(), pp()}) {
      if (axis.size > 1) text += fmt::format(" x {} {}", axis.name, axis.size);
    }
  }
  for (const int ep : ep_sizes_) {
    text += fmt::format("; ep {} x expert-dp {}", ep, expert_dp(ep).size);
    if (expert_tp().size > 1) text += fmt::format(" x expert-tp {}", expert_tp().size);
  }
  return text;
}

IndexRange lanes_of(int rank, int dp, int64_t lanes) {
  check(0 <= rank && rank < dp, ErrorKind::internal, "[plan] rank {} of {} ranks", rank, dp);
  const auto ranks = static_cast<unsigned>(dp);
  check(std::has_single_bit(ranks), ErrorKind::config,
        "[plan] reproducible: strict needs a power-of-two number of ranks, got {}: start {} or {}, or set "
        "reproducible: layout",
        dp, std::bit_floor(ranks), std::bit_ceil(ranks));
  check(lanes >= 1 && std::has_single_bit(static_cast<uint64_t>(lanes)), ErrorKind::config,
        "[plan] the number of lanes must be a power of two, got {}: set it to {}", lanes,
        std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(lanes, 1))));
  check(lanes >= dp, ErrorKind::config,
        "[plan] {} lanes are too few for {} ranks: set at least {} lanes (this changes the bits of the run), "
        "or "
        "start at most {} ranks",
        lanes, dp, dp, lanes);
  const int64_t each = lanes / dp;
  return {rank * each, (rank + 1) * each};
}

}  // namespace ziggurat
