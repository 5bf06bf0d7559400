#include "eval/batch_plan.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include <ziggurat/core/error.h>

namespace ziggurat::eval {

namespace {

using Tokens = std::span<const int32_t>;

// What the model reads for a request: all tokens but the last, which nothing follows.
struct Input {
  size_t request = 0;
  std::vector<int32_t> tokens;
  size_t context = 0;  // how many of them belong to the context; the last of these predicts the first target
  Tokens shared() const { return Tokens(tokens).first(context); }
  Tokens rest() const { return Tokens(tokens).subspan(context); }
};

Input input_of(const TokenRequest& request, size_t number, int64_t length) {
  check_request(request, number, length);
  const size_t most = static_cast<size_t>(length) + 1, targets = request.continuation.size();
  Input input{number, request.context, 0};
  input.tokens.insert(input.tokens.end(), request.continuation.begin(), request.continuation.end());
  if (input.tokens.size() > most)
    input.tokens.erase(input.tokens.begin(), input.tokens.end() - int64_t(most));
  input.tokens.pop_back();
  input.context = input.tokens.size() + 1 - targets;
  return input;
}

// Longest contexts first, equal ones together; among these a rest comes before those that it begins with.
bool comes_before(const Input& a, const Input& b) {
  if (a.context != b.context) return a.context > b.context;
  const auto shared = std::lexicographical_compare_three_way(a.shared().begin(), a.shared().end(),
                                                             b.shared().begin(), b.shared().end());
  if (shared != 0) return shared < 0;
  const auto rest = std::lexicographical_compare_three_way(a.rest().begin(), a.rest().end(), b.rest().begin(),
                                                           b.rest().end());
  if (rest != 0) return rest > 0;
  return a.request < b.request;
}

bool begins_with(const std::vector<int32_t>& tokens, Tokens start) {
  return start.size() <= tokens.size() && std::equal(start.begin(), start.end(), tokens.begin());
}

void add(Group& group, const Input& input, const TokenRequest& request) {
  const Tokens rest = input.rest();
  group.shared.targets.push_back(
      {static_cast<int64_t>(input.context) - 1, request.continuation[0], input.request});
  if (rest.empty()) return;
  if (group.branches.empty() || !begins_with(group.branches.back().tokens, rest)) {
    group.branches.push_back({{rest.begin(), rest.end()}, {}});
  }
  for (size_t i = 0; i < rest.size(); ++i) {
    group.branches.back().targets.push_back(
        {static_cast<int64_t>(i), request.continuation[i + 1], input.request});
  }
}

// One branch is read with its context; more than fit side by side read the context again. A request's targets
// stay together.
std::vector<Group> finish(Group group, int64_t most_sequences) {
  const auto by_row = [](const Target& a, const Target& b) { return a.row < b.row; };
  for (Path& branch : group.branches) std::stable_sort(branch.targets.begin(), branch.targets.end(), by_row);
  const auto most = static_cast<size_t>(most_sequences);
  std::unordered_map<size_t, size_t> part_of_request;  // 0 where there is no branch
  for (size_t i = 0; i < group.branches.size(); ++i) {
    for (const Target& target : group.branches[i].targets) part_of_request[target.request] = i / most;
  }
  std::vector<Group> groups;
  for (size_t begin = 0; begin == 0 || begin < group.branches.size(); begin += most) {
    Group part{.shared = {group.shared.tokens, {}}};
    for (const Target& target : group.shared.targets) {
      if (part_of_request[target.request] == begin / most) part.shared.targets.push_back(target);
    }
    for (size_t i = begin; i < std::min(begin + most, group.branches.size()); ++i) {
      part.branches.push_back(std::move(group.branches[i]));
    }
    if (part.branches.size() == 1) {
      Path& branch = part.branches[0];
      const auto context = static_cast<int64_t>(part.shared.tokens.size());
      part.shared.tokens.insert(part.shared.tokens.end(), branch.tokens.begin(), branch.tokens.end());
      for (const Target& t : branch.targets)
        part.shared.targets.push_back({context + t.row, t.token, t.request});
      part.branches.clear();
    }
    groups.push_back(std::move(part));
  }
  return groups;
}

std::vector<Batch> pack(std::vector<Group> groups, const BatchLimits& limits) {
  std::vector<Batch> batches;
  int64_t shared = 0, branches = 0, sequences = 0;
  for (Group& group : groups) {
    shared += std::ssize(group.shared.tokens);
    branches += group.branch_tokens();
    sequences += group.sequences();
    if (batches.empty() || shared > limits.tokens || branches > limits.tokens ||
        sequences > limits.sequences) {
      batches.emplace_back();
      shared = std::ssize(group.shared.tokens), branches = group.branch_tokens(),
      sequences = group.sequences();
    }
    batches.back().push_back(std::move(group));
  }
  return batches;
}

}  // namespace

int64_t Group::branch_tokens() const {
  return std::accumulate(branches.begin(), branches.end(), int64_t{0},
                         [](int64_t sum, const Path& branch) { return sum + std::ssize(branch.tokens); });
}

void check_request(const TokenRequest& request, size_t number, int64_t length) {
  const auto targets = std::ssize(request.continuation);
  check(!request.context.empty() && targets > 0, ErrorKind::argument,
        "[scorer] request {} has {} tokens of context and {} to score: expected some of both", number,
        request.context.size(), targets);
  check(targets <= length, ErrorKind::data,
        "request {} asks for the likelihood of {} tokens, but the model sees {} at once: let it see more "
        "(--max-length, up to model.max_sequence; while training batch.sequence_length), or leave this task "
        "out",
        number, targets, length);
}

std::vector<Batch> plan_batches(std::span<const TokenRequest> requests, const BatchLimits& limits) {
  std::vector<Input> inputs;
  for (size_t i = 0; i < requests.size(); ++i) inputs.push_back(input_of(requests[i], i, limits.length));
  std::sort(inputs.begin(), inputs.end(), comes_before);

  std::vector<Group> groups;
  for (size_t begin = 0, end = 0; begin < inputs.size(); begin = end) {
    const Tokens shared = inputs[begin].shared();
    Group group{.shared = {{shared.begin(), shared.end()}, {}}};
    for (end = begin; end < inputs.size() && std::ranges::equal(inputs[end].shared(), shared); ++end) {
      add(group, inputs[end], requests[inputs[end].request]);
    }
    for (Group& part : finish(std::move(group), limits.sequences)) groups.push_back(std::move(part));
  }
  return pack(std::move(groups), limits);
}

}  // namespace ziggurat::eval
