// Which tokens a model reads to score requests, and in which order: contexts that requests share are read
// once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/eval/scorer.h>

namespace ziggurat::eval {

// A token whose log-probability counts for a request, predicted by the token at `row` of its path.
struct Target {
  int64_t row = 0;
  int32_t token = 0;
  size_t request = 0;
};

struct Path {  // tokens one after another
  std::vector<int32_t> tokens = {};
  std::vector<Target> targets = {};  // by row
};

// Requests with one context: it is read once, and then each branch after it.
struct Group {
  Path shared;
  std::vector<Path> branches = {};
  int64_t sequences() const { return std::max<int64_t>(1, std::ssize(branches)); }
  int64_t branch_tokens() const;
};
using Batch = std::vector<Group>;

struct BatchLimits {
  int64_t length = 0;     // tokens that the model sees at once: longer requests lose their beginning
  int64_t tokens = 0;     // of a batch's contexts, and of its branches, unless one group alone has more
  int64_t sequences = 0;  // of a batch
};

// Throws Error(argument) where it has no context or continuation, and Error(data) where the continuation is
// longer than a model of `length` tokens sees; `number` names the request.
void check_request(const TokenRequest& request, size_t number, int64_t length);

// The longest first. A function of requests and limits alone. Errors: as check_request.
std::vector<Batch> plan_batches(std::span<const TokenRequest> requests, const BatchLimits& limits);

}  // namespace ziggurat::eval
