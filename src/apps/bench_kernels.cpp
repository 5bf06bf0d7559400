// ziggurat bench kernels: how near each kernel comes to what the machine allows.
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/kernel_cases/lab.h"
#include "apps/kernel_timing.h"
#include "apps/machine.h"
#include <ziggurat/bench/device_roof.h>
#include <ziggurat/bench/roof.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/device_timer.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

namespace {

// Operands come from memory, as in a training step, not from the cache where the last call left them: calls
// take turns on sets of operands that are together larger than most caches.
constexpr int64_t kBeyondCaches = int64_t{128} << 20;
constexpr size_t kMostSets = 64;

double measure(const KernelCase& kernel, Device device) {
  Lab lab(device);
  std::vector<std::function<void()>> sets;
  do {
    sets.push_back(kernel.prepare(lab));
  } while (lab.bytes() < kBeyondCaches && sets.size() < kMostSets);
  for (const auto& call : sets) call();  // warms up, and packs weights
  size_t next = 0;
  const auto call = [&] { sets[next++ % sets.size()](); };
  return device == Device::cuda ? fastest_on_device(lab.stream(), call) : fastest_seconds(call);
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

Roofs measure_roofs(Device device) {
  if (device == Device::cuda) {
    const bench::DeviceRoofs roofs = bench::measure_device_roofs();
    return {roofs.flops_per_second(DType::f32), roofs.flops_per_second(DType::bf16), roofs.copy, roofs.read};
  }
  return {bench::measure_gemm_roof(DType::f32), bench::measure_gemm_roof(DType::bf16),
          bench::measure_memory_roof(), bench::measure_read_roof()};
}

void print_heading(const std::string& machine, Device device, const Roofs& roofs) {
  fmt::print(
      "{}; floors: products, FLOPs at {:.1f} (f32) and {:.1f} (bf16) GFLOP/s; traffic, bytes at "
      "{:.1f} GB/s; reads, at {:.1f}\n",
      machine, roofs.f32 / 1e9, roofs.bf16 / 1e9, roofs.traffic / 1e9, roofs.reads / 1e9);
  if (device == Device::cpu && kernels::bf16_gemm() == kernels::Bf16Gemm::widened) {
    fmt::print("this CPU has no bf16 products: theirs run, and are their roof, on operands widened to f32\n");
  }
  fmt::print("  {:<26}{:<22}{:<6}{:>12}{:>12}{:>12}{:>12}  {}\n", "kernel", "shape", "dtype", "time us",
             "floor us", "% of floor", "rate", "floor");
}

void print(const KernelCase& k, double seconds, double floor) {
  const bool products = k.floor.kind == Floor::Kind::products;
  fmt::print("  {:<26}{:<22}{:<6}{:>12.1f}{:>12.1f}{:>12.1f}{:>12.1f}  {}, {}\n", k.name, k.shape,
             to_string(k.dtype), 1e6 * seconds, 1e6 * floor, 100 * floor / seconds,
             k.floor.amount / seconds / 1e9, products ? "GFLOP/s" : "GB/s", to_string(k.floor.kind));
  std::fflush(stdout);
}

}  // namespace

void bench_kernels(const BenchKernelsArguments& arguments) {
  const Device device = arguments.device;
  const Gpus gpus = device == Device::cuda ? look_for_gpus() : Gpus{};
  if (device == Device::cuda) check_gpu(gpus, 0);
  const std::vector<KernelCase> cases = kernel_cases(device, CaseSize::timed, arguments.filter);
  use_threads(arguments.threads, "--threads");
  const std::string machine =
      device == Device::cuda ? gpus.all.front().name : fmt::format("{} threads", thread_count());
  const Roofs roofs = measure_roofs(device);
  nlohmann::ordered_json out = {{"device", to_string(device)},
                                {"threads", thread_count()},
                                {"gemm_f32_flops_per_second", roofs.f32},
                                {"gemm_bf16_flops_per_second", roofs.bf16},
                                {"memory_bytes_per_second", roofs.traffic},
                                {"memory_read_bytes_per_second", roofs.reads}};
  if (!arguments.json) print_heading(machine, device, roofs);
  for (const KernelCase& kernel : cases) {
    const double seconds = measure(kernel, device), floor = roofs.seconds(kernel);
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
  const double again =
      device == Device::cuda ? measure_roofs(device).f32 : bench::measure_gemm_roof(DType::f32);
  out["gemm_f32_flops_per_second_afterwards"] = again;
  if (arguments.json) return fmt::print("{}\n", out.dump(2));
  if (std::abs(again / roofs.f32 - 1) > 0.1) {
    fmt::print(
        "the f32 roof was {:.1f} GFLOP/s at first and {:.1f} in the end: other work disturbed this run\n",
        roofs.f32 / 1e9, again / 1e9);
  }
}

}  // namespace ziggurat::apps
