// ziggurat bench roof | step CONFIG: what the machine can do, and how near a training step comes.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/machine.h"
#include <ziggurat/bench/device_roof.h>
#include <ziggurat/bench/gemm_bound.h>
#include <ziggurat/bench/roof.h>
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

namespace {

using nlohmann::ordered_json;

// The fastest of several steps, and of as many passes of the bound between them: other processes only ever
// add time.
struct Measured {
  double step = 0, bound = 0;  // seconds
  double flops = 0;            // of the bound's products, over all ranks; 0: there is no bound
  int64_t launches = 0, graphs = 0, waits = 0;  // of the fastest step, on rank 0's device
  bench::GemmBound::Times parts;                // of the fastest pass
  std::vector<Profile::Entry> spans;            // of the fastest step, on rank 0
  CollectiveTimes collectives;                  // likewise
};

double slowest(Communicator& world, double seconds) {
  Stream stream;
  world.all_reduce(Tensor(&seconds, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream).wait();
  return seconds;
}

Measured measure(const train::RunConfig& config, Communicator& world, int64_t steps) {
  train::Trainer trainer(config, world);
  std::optional<bench::GemmBound> bound;  // the CPU's products
  if (config.device == Device::cpu) bound.emplace(config, world.size());
  Profile profile;
  if (bound) trainer.set_profile(&profile);  // spans on a device would tell how long queueing takes
  Measured best;
  best.flops = bound ? bound->flops() * world.size() : 0;
  for (int64_t i = 0; i <= steps; ++i) {  // the first is for warming up
    world.barrier();
    const bench::GemmBound::Times parts = bound ? bound->run() : bench::GemmBound::Times{};
    const double bound_seconds = slowest(world, parts.total());
    profile.reset();
    world.barrier();
    for (auto& [name, time] : world.times()) time = {};
    const Timer timer;
    train::StepRecord record;
    {
      const Span span(&profile, "step");
      record = trainer.step();
    }
    const CollectiveTimes collectives = world.times();
    const double step_seconds = slowest(world, timer.seconds());
    if (i == 0) continue;
    if (i == 1 || bound_seconds < best.bound) best.bound = bound_seconds, best.parts = parts;
    if (i > 1 && step_seconds >= best.step) continue;
    best.step = step_seconds, best.spans = profile.entries();
    best.collectives = collectives;
    best.launches = record.launches, best.graphs = record.graphs, best.waits = record.waits;
  }
  return best;
}

// What of the roofs a step on a GPU reaches: its model's FLOPs, and the host's time to start its kernels,
// which must be no more than the step's.
struct Shares {
  double flops_per_second = 0;  // of the model, a rank
  double of_products = 0, of_starts = 0;
};
Shares shares(const train::RunConfig& config, const Measured& m, double tokens, int ranks,
              const bench::DeviceRoofs& roofs) {
  Shares s;
  const double flops = model::count(config.model, config.batch.sequence_length).flops_per_token;
  s.flops_per_second = tokens / m.step * flops / ranks;
  const DType operands = config.precision == train::Precision::bf16 ? DType::bf16 : DType::f32;
  s.of_products = s.flops_per_second / roofs.flops_per_second(operands);
  s.of_starts = static_cast<double>(m.launches) * roofs.start / m.step;
  return s;
}

void print(const Shares& s, const Measured& m) {
  fmt::print("  {:<24}{:10.1f} TFLOP/s a rank, {:.1f} % of the roof of products\n", "of the model",
             s.flops_per_second / 1e12, 100 * s.of_products);
  fmt::print(
      "  {:<24}{:10} kernels and {} graphs started, which takes the host {:.1f} % of the step; {} waits for "
      "the "
      "device\n",
      "rank 0", m.launches, m.graphs, 100 * s.of_starts, m.waits);
}

void print(const CollectiveTimes& collectives) {
  const auto calls = [](const auto& c) { return c.second.calls > 0; };
  if (std::none_of(collectives.begin(), collectives.end(), calls)) return;
  fmt::print("collectives (rank 0; exposed: of the thread that computes, hidden: beside it)\n");
  fmt::print("  {:<34}{:>6}{:>12}{:>14}{:>13}\n", "", "calls", "bytes", "exposed ms", "hidden ms");
  CollectiveTime all;
  for (const auto& [name, c] : collectives) {
    if (c.calls == 0) continue;
    fmt::print("  {:<34}{:>6}{:>12}{:>14.2f}{:>13.2f}\n", name, c.calls,
               format_bytes(static_cast<double>(c.bytes)), 1e3 * c.exposed, 1e3 * c.hidden);
    all.exposed += c.exposed, all.hidden += c.hidden;
  }
  fmt::print("  {:<52}{:>14.2f}{:>13.2f}\n", "all", 1e3 * all.exposed, 1e3 * all.hidden);
}

void print(const train::RunConfig& config, const Measured& m, double tokens, int ranks,
           const std::optional<Shares>& of_gpu) {
  const double rate = tokens / m.step, bound = tokens / m.bound;
  fmt::print("{}: {} ranks x {} threads, {} tokens a step\n", config.name, ranks, thread_count(), tokens);
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.1f} ms\n", "training step", rate, 1e3 * m.step);
  if (of_gpu) print(*of_gpu, m);
  print(m.collectives);
  if (m.flops == 0) return;
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.1f} ms  {:.1f} GFLOP/s\n", "GEMM-only bound", bound,
             1e3 * m.bound, m.flops / m.bound / 1e9);
  fmt::print("  {:<24}{:10.1f} %\n", "of the bound", 100 * rate / bound);
  fmt::print("GEMM-only bound by part\n");
  const auto part = [&](const char* name, double seconds) {
    if (seconds > 0)
      fmt::print("  {:<44}{:8.1f} ms {:6.1f} %\n", name, 1e3 * seconds, 100 * seconds / m.bound);
  };
  part("linear", m.parts.linear);
  part("expert", m.parts.expert);
  part("attention", m.parts.attention);
  part("head", m.parts.head);
  fmt::print("training step by span (rank 0)\n");
  for (const Profile::Entry& e : m.spans) {
    if (e.seconds < 0.001 * m.step) break;
    fmt::print("  {:<44}{:8.1f} ms {:6.1f} %  {:>6} calls\n", e.path, 1e3 * e.seconds,
               100 * e.seconds / m.step, e.calls);
  }
}

std::string json(const train::RunConfig& config, const Measured& m, double tokens, int ranks,
                 const std::optional<Shares>& of_gpu) {
  ordered_json out = {{"name", config.name},
                      {"ranks", ranks},
                      {"threads", thread_count()},
                      {"tokens_per_step", tokens},
                      {"gemm_flops_per_step", m.flops},
                      {"step_seconds", m.step},
                      {"gemm_bound_seconds", m.bound},
                      {"tokens_per_second", tokens / m.step},
                      {"launches", m.launches},
                      {"graphs", m.graphs},
                      {"waits", m.waits},
                      {"gemm_bound_tokens_per_second", tokens / m.bound},
                      {"gemm_bound_seconds_by_part",
                       {{"linear", m.parts.linear},
                        {"expert", m.parts.expert},
                        {"attention", m.parts.attention},
                        {"head", m.parts.head}}}};
  if (of_gpu) {
    out["model_flops_per_second_of_a_rank"] = of_gpu->flops_per_second;
    out["of_product_roof"] = of_gpu->of_products;
    out["of_step_for_starts"] = of_gpu->of_starts;
  }
  for (const Profile::Entry& e : m.spans) {
    out["spans"].push_back({{"path", e.path}, {"seconds", e.seconds}, {"calls", e.calls}});
  }
  for (const auto& [name, c] : m.collectives) {
    if (c.calls == 0) continue;
    out["collectives"].push_back({{"name", name},
                                  {"calls", c.calls},
                                  {"bytes", c.bytes},
                                  {"exposed_seconds", c.exposed},
                                  {"hidden_seconds", c.hidden}});
  }
  return out.dump(2);
}

void print(const bench::DeviceRoofs& roofs) {
  for (const bench::DeviceRoofs::Product& p : roofs.products) {
    fmt::print("  {:<24}{:8.1f} TFLOP/s    (matrices [{}, {}])\n", fmt::format("GEMM {}", to_string(p.dtype)),
               p.flops_per_second / 1e12, p.size, p.size);
  }
  fmt::print("  {:<24}{:8.1f} GB/s    (a copy: read and written)\n", "memory", roofs.copy / 1e9);
  fmt::print("  {:<24}{:8.1f} GB/s    (only reading)\n", "memory", roofs.read / 1e9);
  fmt::print("  {:<24}{:8.2f} us    (that do nothing, one after the other)\n", "a kernel",
             1e6 * roofs.kernel);
  fmt::print("  {:<24}{:8.2f} us    (of the host)\n", "starting one", 1e6 * roofs.start);
  fmt::print("  {:<24}{:8.2f} us    (started and waited for)\n", "one alone", 1e6 * roofs.round_trip);
  fmt::print("  {:<24}{:8.0f} bytes (of the GPU, that CUDA keeps of it; plans count {})\n", "one recorded",
             roofs.recorded, train::kGraphNodeBytes);
}

ordered_json json(const bench::DeviceRoofs& roofs) {
  ordered_json out = {{"copy_bytes_per_second", roofs.copy},    {"read_bytes_per_second", roofs.read},
                      {"kernel_seconds", roofs.kernel},         {"start_seconds", roofs.start},
                      {"round_trip_seconds", roofs.round_trip}, {"recorded_kernel_bytes", roofs.recorded}};
  for (const bench::DeviceRoofs::Product& p : roofs.products) {
    out["products"].push_back(
        {{"dtype", to_string(p.dtype)}, {"size", p.size}, {"flops_per_second", p.flops_per_second}});
  }
  return out;
}

void bench_device_roof(const BenchArguments& arguments) {
  const Gpus gpus = look_for_gpus();
  check_gpu(gpus, 0);
  const bench::DeviceRoofs roofs = bench::measure_device_roofs();
  if (arguments.json) {
    ordered_json out = {{"device", gpus.all.front().name}};
    out.update(json(roofs));
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{}\n", gpus.all.front().name);
  print(roofs);
}

}  // namespace

void bench_roof(const BenchArguments& arguments) {
  if (arguments.device == Device::cuda) return bench_device_roof(arguments);
  use_threads(arguments.threads, "--threads");
  const double f64 = bench::measure_gemm_roof(DType::f64), f32 = bench::measure_gemm_roof(DType::f32),
               bf16 = bench::measure_gemm_roof(DType::bf16);
  const double copy = bench::measure_memory_roof(), read = bench::measure_read_roof();
  if (arguments.json) {
    const ordered_json out = {{"threads", thread_count()},        {"gemm_f64_flops_per_second", f64},
                              {"gemm_f32_flops_per_second", f32}, {"gemm_bf16_flops_per_second", bf16},
                              {"memory_bytes_per_second", copy},  {"memory_read_bytes_per_second", read}};
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} threads\n", thread_count());
  fmt::print("  {:<24}{:8.1f} GFLOP/s    (plain loops, for checks of gradients)\n", "GEMM f64", f64 / 1e9);
  fmt::print("  {:<24}{:8.1f} GFLOP/s\n", "GEMM f32", f32 / 1e9);
  fmt::print("  {:<24}{:8.1f} GFLOP/s\n", "GEMM bf16", bf16 / 1e9);
  fmt::print("  {:<24}{:8.1f} GB/s    (y += x on arrays beyond the caches)\n", "memory", copy / 1e9);
  fmt::print("  {:<24}{:8.1f} GB/s    (only reading)\n", "memory", read / 1e9);
}

void bench_step(const BenchArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  config.output = std::filesystem::temp_directory_path() / fmt::format("ziggurat_bench_{}", getpid());
  config.eval.sequences = 0;
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  const bool by_option = arguments.threads > 0;
  if (by_option) config.threads = arguments.threads;
  use_threads(config.threads, by_option ? "--threads" : "threads", mpi.local_size());
  train::check_for_ranks(config, world.size());
  use_device(config.device, mpi);
  use_nodes(config.parallel.ranks_per_node, config.parallel.all_to_all, mpi, world);
  const Measured m = measure(config, world, arguments.steps);
  const auto tokens = static_cast<double>(
      train::plan_step(config, train::layout_of(config, world.size()).dp().size, 0).tokens);
  if (world.rank() == 0) {
    std::optional<Shares> of_gpu;
    if (config.device == Device::cuda) {
      of_gpu = shares(config, m, tokens, world.size(), bench::measure_device_roofs());
    }
    if (arguments.json) {
      fmt::print("{}\n", json(config, m, tokens, world.size(), of_gpu));
    } else {
      print(config, m, tokens, world.size(), of_gpu);
    }
    std::filesystem::remove_all(config.output);
  }
}

}  // namespace ziggurat::apps
