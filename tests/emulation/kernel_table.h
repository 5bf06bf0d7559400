// What the kernels of kernels/cuda move beside their floors, counted on the emulated device: every case of
// `ziggurat bench kernels` that CUDA has, at small shapes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "apps/kernel_cases.h"
#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

struct TableRow {
  apps::KernelCase kernel;
  std::vector<std::pair<std::string, KernelCounts>> launched;  // by name
  KernelCounts total;

  // A library's product: what it moves is the library's affair, and is not counted.
  bool counted() const { return sectors() > 0; }
  int64_t asked_bytes() const { return total.loaded_bytes + total.stored_bytes; }
  int64_t sectors() const { return total.load_sectors + total.store_sectors; }
  // What a GPU without caches moves, of the floor. 1 at best, below only where the floor says more than these
  // operands need.
  double moved() const { return 32.0 * static_cast<double>(sectors()) / kernel.floor.bytes; }
  // Bytes that threads asked for, of those in the sectors that they touched. 1 where each is asked for once;
  // less where accesses are not coalesced, more where threads of a warp share a value.
  double used() const { return static_cast<double>(asked_bytes()) / (32.0 * static_cast<double>(sectors())); }
};

// Runs one call of the case on a new device. Throws KernelError as kernels do.
TableRow table_row(const apps::KernelCase& kernel);

struct Limits {
  double moved = 1.1, used = 0.9;
};
// A case that may move more, or use less of it, than others, and why.
struct Allowance {
  std::string kernel;  // name of the case
  Limits f32, bf16;
  const char* why;
};
const std::vector<Allowance>& allowances();
// The allowance of the case; without one, the limits of all others.
Allowance allowance(const std::string& kernel);

}  // namespace ziggurat::emulation
