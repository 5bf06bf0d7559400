#include "data_tools/bench.h"

#include <algorithm>
#include <vector>

#include <fmt/ostream.h>

#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/dataset.h>

namespace ziggurat {
namespace {

// Calls body() until `seconds` have passed; the sum of what it returns, per second.
template <class Body>
double rate(double seconds, const Body& body) {
  const Timer timer;
  int64_t done = 0;
  while (timer.seconds() < seconds) done += body();
  return static_cast<double>(done) / timer.seconds();
}

}  // namespace

void bench_shards(const BenchOptions& options, std::ostream& out) {
  const Timer timer;
  DatasetOptions dataset_options;
  dataset_options.sequence_length = options.sequence_length;
  const Dataset data(options.path, options.split, dataset_options);
  const TokenStream& stream = data.stream();
  fmt::print(out, "opened {} shards of {} tokens in {:.3f} s\n", stream.shards().size(),
             format_count(static_cast<double>(stream.size())), timer.seconds());

  const int64_t chunk = std::min<int64_t>(stream.size(), 1 << 16);  // its 32-bit ids stay in the L2 cache
  std::vector<int32_t> tokens(static_cast<size_t>(std::max(chunk, options.sequence_length)));
  std::vector<int32_t> targets(static_cast<size_t>(options.sequence_length));
  int64_t next = 0;
  const double sequential = rate(options.seconds, [&] {
    if (next + chunk > stream.size()) next = 0;
    stream.read(next, chunk, tokens.data());
    next += chunk;
    return chunk;
  });
  fmt::print(out, "in order                       {} tokens/s\n", format_count(sequential));
  next = 0;
  const double random = rate(options.seconds, [&] {
    data.load(next++, 1, tokens.data(), targets.data());
    return options.sequence_length;
  });
  fmt::print(out, "random windows of {:>5} tokens {} tokens/s\n", options.sequence_length + 1,
             format_count(random));
}

}  // namespace ziggurat
