#include <algorithm>
#include <bit>

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

ParallelPlan::ParallelPlan(int world_size, std::vector<int> ep_sizes)
    : world_size_(world_size), ep_sizes_(std::move(ep_sizes)) {
  check(world_size >= 1, ErrorKind::config, "[plan] a job has at least 1 rank, got {}", world_size);
  std::sort(ep_sizes_.begin(), ep_sizes_.end());
  ep_sizes_.erase(std::unique(ep_sizes_.begin(), ep_sizes_.end()), ep_sizes_.end());
  for (const int ep : ep_sizes_) {
    const auto divides_world = [&](int64_t value) { return world_size_ % value == 0; };
    check(ep >= 1, ErrorKind::config, "[plan] an expert-parallel size is at least 1, got {}", ep);
    check(divides_world(ep), ErrorKind::config,
          "[plan] expert-parallel size {} does not divide the {} ranks of this job: set it to {}, or start "
          "{} ranks",
          ep, world_size_, nearest(ep, world_size_, divides_world), nearest_multiples(world_size_, ep));
  }
}

int ParallelPlan::checked_rank(int rank) const {
  check(0 <= rank && rank < world_size_, ErrorKind::internal, "[plan] rank {} of {} ranks", rank,
        world_size_);
  return rank;
}

int ParallelPlan::checked_ep(int ep) const {
  check(std::binary_search(ep_sizes_.begin(), ep_sizes_.end(), ep), ErrorKind::internal,
        "[plan] expert-parallel size {} was not planned: {}", ep, str());
  return ep;
}

std::vector<int> ParallelPlan::ep_members(int rank, int ep) const {
  std::vector<int> members;
  for (int i = 0; i < ep; ++i) members.push_back(ep_group(rank, ep) * ep + i);
  return members;
}

std::vector<int> ParallelPlan::expert_dp_members(int rank, int ep) const {
  std::vector<int> members;
  for (int i = 0; i < expert_dp_size(ep); ++i) members.push_back(ep_rank(rank, ep) + i * ep);
  return members;
}

IndexRange ParallelPlan::experts_of(int rank, int64_t num_experts, int ep) const {
  const int place = ep_rank(rank, ep);
  const auto divides_both = [&](int64_t value) {
    return num_experts % value == 0 && world_size_ % value == 0;
  };
  check(num_experts >= 1, ErrorKind::config, "[plan] a layer of experts has at least 1, got {}", num_experts);
  check(
      num_experts % ep == 0, ErrorKind::config,
      "[plan] {} experts can't be cut over expert-parallel size {}: set the size to {}, or the experts to {}",
      num_experts, ep, nearest(ep, world_size_, divides_both), nearest_multiples(num_experts, ep));
  const int64_t local = num_experts / ep;
  return {place * local, (place + 1) * local};
}

std::string ParallelPlan::str() const {
  std::string text = fmt::format("{} ranks", world_size_);
  for (const int ep : ep_sizes_) text += fmt::format("; ep {} x expert-dp {}", ep, world_size_ / ep);
  return text;
}

IndexRange lanes_of(int rank, int world_size, int64_t lanes) {
  check(0 <= rank && rank < world_size, ErrorKind::internal, "[plan] rank {} of {} ranks", rank, world_size);
  const auto ranks = static_cast<unsigned>(world_size);
  check(std::has_single_bit(ranks), ErrorKind::config,
        "[plan] reproducible: strict needs a power-of-two number of ranks, got {}: start {} or {}, or set "
        "reproducible: layout",
        world_size, std::bit_floor(ranks), std::bit_ceil(ranks));
  check(lanes >= 1 && std::has_single_bit(static_cast<uint64_t>(lanes)), ErrorKind::config,
        "[plan] the number of lanes must be a power of two, got {}: set it to {}", lanes,
        std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(lanes, 1))));
  check(lanes >= world_size, ErrorKind::config,
        "[plan] {} lanes are too few for {} ranks: set at least {} lanes (this changes the bits of the run), "
        "or "
        "start at most {} ranks",
        lanes, world_size, world_size, lanes);
  const int64_t each = lanes / world_size;
  return {rank * each, (rank + 1) * each};
}

}  // namespace ziggurat
