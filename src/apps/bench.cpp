// ziggurat bench roof | step CONFIG: what the machine can do, and how near a training step comes.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "apps/commands.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/gemm_bound.h>
#include <ziggurat/train/roof.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

namespace {

using nlohmann::ordered_json;

// The fastest of several steps, and of as many passes of the bound between them: other processes only ever
// add time.
struct Measured {
  double step = 0, bound = 0;         // seconds
  double flops = 0;                   // of the bound's products, over all ranks
  train::GemmBound::Times parts;      // of the fastest pass
  std::vector<Profile::Entry> spans;  // of the fastest step, on rank 0
};

double slowest(Communicator& world, double seconds) {
  Stream stream;
  world.all_reduce(Tensor(&seconds, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream).wait();
  return seconds;
}

Measured measure(const train::RunConfig& config, Communicator& world, int64_t steps) {
  train::Trainer trainer(config, world);
  train::GemmBound bound(config, world.size());
  Profile profile;
  trainer.set_profile(&profile);
  Measured best;
  best.flops = bound.flops() * world.size();
  for (int64_t i = 0; i <= steps; ++i) {  // the first is for warming up
    world.barrier();
    const train::GemmBound::Times parts = bound.run();
    const double bound_seconds = slowest(world, parts.total());
    profile.reset();
    world.barrier();
    const Timer timer;
    {
      const Span span(&profile, "step");
      trainer.step();
    }
    const double step_seconds = slowest(world, timer.seconds());
    if (i == 0) continue;
    if (i == 1 || bound_seconds < best.bound) best.bound = bound_seconds, best.parts = parts;
    if (i == 1 || step_seconds < best.step) best.step = step_seconds, best.spans = profile.entries();
  }
  return best;
}

void print(const train::RunConfig& config, const Measured& m, double tokens, int ranks) {
  const double rate = tokens / m.step, bound = tokens / m.bound;
  fmt::print("{}: {} ranks x {} threads, {} tokens a step\n", config.name, ranks, thread_count(), tokens);
  fmt::print("  {:<24}{:10.1f} tokens/s  {:8.1f} ms\n", "training step", rate, 1e3 * m.step);
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

std::string json(const train::RunConfig& config, const Measured& m, double tokens, int ranks) {
  ordered_json out = {{"name", config.name},
                      {"ranks", ranks},
                      {"threads", thread_count()},
                      {"tokens_per_step", tokens},
                      {"gemm_flops_per_step", m.flops},
                      {"step_seconds", m.step},
                      {"gemm_bound_seconds", m.bound},
                      {"tokens_per_second", tokens / m.step},
                      {"gemm_bound_tokens_per_second", tokens / m.bound},
                      {"gemm_bound_seconds_by_part",
                       {{"linear", m.parts.linear},
                        {"expert", m.parts.expert},
                        {"attention", m.parts.attention},
                        {"head", m.parts.head}}}};
  for (const Profile::Entry& e : m.spans) {
    out["spans"].push_back({{"path", e.path}, {"seconds", e.seconds}, {"calls", e.calls}});
  }
  return out.dump(2);
}

}  // namespace

void bench_roof(const BenchArguments& arguments) {
  use_threads(arguments.threads, "--threads");
  const double f64 = train::measure_gemm_roof(DType::f64), f32 = train::measure_gemm_roof(DType::f32),
               bf16 = train::measure_gemm_roof(DType::bf16);
  const double copy = train::measure_memory_roof(), read = train::measure_read_roof();
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
  const Measured m = measure(config, world, arguments.steps);
  const auto tokens = static_cast<double>(train::plan_step(config, world.size(), 0).tokens);
  if (world.rank() == 0) {
    if (arguments.json) {
      fmt::print("{}\n", json(config, m, tokens, world.size()));
    } else {
      print(config, m, tokens, world.size());
    }
    std::filesystem::remove_all(config.output);
  }
}

}  // namespace ziggurat::apps
