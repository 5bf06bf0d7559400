// emulated_bench: the table of kernel_table.h. How to read it: scripts/bench/README.md.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/emulation/kernel_table.h"
#include <ziggurat/core/error.h>

namespace ziggurat::emulation {

namespace {

void print_heading() {
  fmt::print("  {:<26}{:<22}{:<6}{:>9}{:>12}{:>12}{:>12}{:>10}{:>12}{:>8}{:>8}\n", "kernel", "shape", "dtype",
             "launches", "loaded", "stored", "sectors", "MFLOP", "floor", "moved", "used");
}

void print(const TableRow& row) {
  const auto& k = row.kernel;
  const bool products = k.floor.kind == apps::Floor::Kind::products;
  fmt::print("  {:<26}{:<22}{:<6}{:>9}", k.name, k.shape, to_string(k.dtype), row.total.launches);
  const std::string flops = products ? fmt::format("{:.2f}", k.floor.amount / 1e6) : "";
  if (!row.counted())
    return fmt::print("{:>12}{:>12}{:>12}{:>10}{:>12.0f}\n", "library", "", "", flops, k.floor.bytes);
  fmt::print("{:>12}{:>12}{:>12}{:>10}{:>12.0f}{:>8.2f}{:>8.2f}\n", row.total.loaded_bytes,
             row.total.stored_bytes, row.sectors(), flops, k.floor.bytes, row.moved(), row.used());
}

nlohmann::ordered_json to_json(const KernelCounts& did) {
  return {{"launches", did.launches},
          {"loaded_bytes", did.loaded_bytes},
          {"stored_bytes", did.stored_bytes},
          {"load_sectors", did.load_sectors},
          {"store_sectors", did.store_sectors}};
}

nlohmann::ordered_json to_json(const TableRow& row) {
  const auto& k = row.kernel;
  nlohmann::ordered_json out = {{"name", k.name},
                                {"shape", k.shape},
                                {"dtype", to_string(k.dtype)},
                                {"floor", to_string(k.floor.kind)},
                                {"floor_amount", k.floor.amount},
                                {"floor_bytes", k.floor.bytes},
                                {"total", to_json(row.total)}};
  if (row.counted()) out["moved"] = row.moved(), out["used"] = row.used();
  for (const auto& [name, did] : row.launched) {
    nlohmann::ordered_json kernel = {{"name", name}};
    kernel.update(to_json(did));
    kernel["block_threads"] = did.block_threads;
    kernel["dynamic_shared_bytes"] = did.dynamic_shared_bytes;
    out["kernels"].push_back(kernel);
  }
  return out;
}

void run(const std::string& filter, bool json) {
  nlohmann::ordered_json out;
  if (!json) print_heading();
  for (const apps::KernelCase& kernel : apps::kernel_cases(Device::cuda, apps::CaseSize::counted, filter)) {
    const TableRow row = table_row(kernel);
    if (json) {
      out["cases"].push_back(to_json(row));
    } else {
      print(row);
    }
  }
  if (json) fmt::print("{}\n", out.dump(2));
}

}  // namespace

}  // namespace ziggurat::emulation

int main(int argc, char** argv) {
  CLI::App app("What the CUDA kernels move beside their floors, counted on an emulated device");
  std::string filter;
  bool json = false;
  app.add_option("--filter", filter, "regular expression, found in NAME/DTYPE; default: all");
  app.add_flag("--json", json, "machine-readable, with the kernels of each case");
  CLI11_PARSE(app, argc, argv);
  try {
    ziggurat::emulation::run(filter, json);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "emulated_bench: %s\n", error.what());
    return 1;
  }
}
