// ziggurat bench kernels: how near each kernel comes to what the machine allows.
#include <cmath>
#include <cstdio>
#include <regex>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/kernel_cases/lab.h"
#include "apps/kernel_timing.h"
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/roof.h>

namespace ziggurat::apps {

namespace {

// Operands come from memory, as in a training step, not from the cache where the last call left them: calls
// take turns on sets of operands that are together larger than most caches.
constexpr int64_t kBeyondCaches = int64_t{128} << 20;
constexpr size_t kMostSets = 64;

double measure(const KernelCase& kernel) {
  Lab lab;
  std::vector<std::function<void()>> sets;
  do {
    sets.push_back(kernel.prepare(lab));
  } while (lab.bytes() < kBeyondCaches && sets.size() < kMostSets);
  for (const auto& call : sets) call();  // warms up, and packs weights
  size_t next = 0;
  return fastest_seconds([&] { sets[next++ % sets.size()](); });
}

struct Roofs {
  double f32, bf16;       // FLOP/s
  double traffic, reads;  // bytes/s

  double seconds(const KernelCase& kernel) const {
    switch (kernel.floor.kind) {
      case Floor::Kind::products:
        return kernel.floor.amount / (kernel.dtype == DType::bf16 ? bf16 : f32);
      case Floor::Kind::traffic:
        return kernel.floor.amount / traffic;
      case Floor::Kind::reads:
        return kernel.floor.amount / reads;
    }
    return 0;
  }
};

const char* to_string(Floor::Kind kind) {
  switch (kind) {
    case Floor::Kind::products:
      return "products";
    case Floor::Kind::traffic:
      return "traffic";
    case Floor::Kind::reads:
      return "reads";
  }
  return "unknown";
}

std::vector<KernelCase> chosen(const std::string& filter) {
  std::vector<KernelCase> cases = kernel_cases();
  try {
    const std::regex wanted(filter);
    std::erase_if(cases, [&](const KernelCase& k) {
      return !std::regex_search(fmt::format("{}/{}", k.name, to_string(k.dtype)), wanted);
    });
  } catch (const std::regex_error& error) {
    fail(ErrorKind::argument, "--filter '{}' is not a regular expression: {}", filter, error.what());
  }
  check(!cases.empty(), ErrorKind::argument,
        "--filter '{}': expected part of a kernel's name, e.g. 'norm.*/bf16'", filter);
  return cases;
}

void print_heading(const Roofs& roofs) {
  fmt::print(
      "{} threads; floors: products, FLOPs at {:.1f} (f32) and {:.1f} (bf16) GFLOP/s; traffic, bytes at "
      "{:.1f} GB/s; reads, at {:.1f}\n",
      thread_count(), roofs.f32 / 1e9, roofs.bf16 / 1e9, roofs.traffic / 1e9, roofs.reads / 1e9);
  if (kernels::bf16_gemm() == kernels::Bf16Gemm::widened) {
    fmt::print("this CPU has no bf16 products: theirs run, and are their roof, on operands widened to f32\n");
  }
  fmt::print("  {:<26}{:<22}{:<6}{:>12}{:>12}{:>12}  {}\n", "kernel", "shape", "dtype", "time us", "floor us",
             "% of floor", "floor");
}

void print(const KernelCase& k, double seconds, double floor) {
  fmt::print("  {:<26}{:<22}{:<6}{:>12.1f}{:>12.1f}{:>12.1f}  {}\n", k.name, k.shape, to_string(k.dtype),
             1e6 * seconds, 1e6 * floor, 100 * floor / seconds, to_string(k.floor.kind));
  std::fflush(stdout);
}

}  // namespace

void bench_kernels(const BenchKernelsArguments& arguments) {
  const std::vector<KernelCase> cases = chosen(arguments.filter);
  use_threads(arguments.threads, "--threads");
  const Roofs roofs{train::measure_gemm_roof(DType::f32), train::measure_gemm_roof(DType::bf16),
                    train::measure_memory_roof(), train::measure_read_roof()};
  nlohmann::ordered_json out = {{"threads", thread_count()},
                                {"gemm_f32_flops_per_second", roofs.f32},
                                {"gemm_bf16_flops_per_second", roofs.bf16},
                                {"memory_bytes_per_second", roofs.traffic},
                                {"memory_read_bytes_per_second", roofs.reads}};
  if (!arguments.json) print_heading(roofs);
  for (const KernelCase& kernel : cases) {
    const double seconds = measure(kernel), floor = roofs.seconds(kernel);
    if (!arguments.json) print(kernel, seconds, floor);
    out["kernels"].push_back({{"name", kernel.name},
                              {"shape", kernel.shape},
                              {"dtype", to_string(kernel.dtype)},
                              {"seconds", seconds},
                              {"floor", to_string(kernel.floor.kind)},
                              {"floor_amount", kernel.floor.amount},
                              {"floor_seconds", floor},
                              {"of_floor", floor / seconds}});
  }
  const double again = train::measure_gemm_roof(DType::f32);
  out["gemm_f32_flops_per_second_afterwards"] = again;
  if (arguments.json) return fmt::print("{}\n", out.dump(2));
  if (std::abs(again / roofs.f32 - 1) > 0.1) {
    fmt::print(
        "the f32 roof was {:.1f} GFLOP/s at first and {:.1f} in the end: other work disturbed this run\n",
        roofs.f32 / 1e9, again / 1e9);
  }
}

}  // namespace ziggurat::apps
