// What GPUs a machine has, and whether this build's kernels run on them: for `ziggurat doctor`, and before a
// run takes one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int64_t memory = 0;        // bytes
};

struct Gpus {
  std::string driver;     // the newest CUDA that it knows, as 13.0; empty: there is no driver
  std::string built_for;  // as built_for_gpus()
  std::string problem;    // why no GPU can be used, in the runtime's words; empty: all below can be
  std::string cure;       // what to do about it
  std::vector<Gpu> all;   // that this process may use
};

// Starts nothing on a GPU, and throws nothing. In a build without CUDA there is a problem.
Gpus look_for_gpus();

// The build's: "sm_80 sm_90a sm_100". Empty in a build without CUDA.
std::string built_for_gpus();
// The libraries that it was compiled with: "CUDA 13.0, cuDNN 9.14" or "CUDA 13.0". Empty likewise.
std::string gpu_libraries();

// Whether machine code for one of the `architectures` runs there: code for sm_80 on 8.0 and what is later of
// its family (8.6, 8.9), code for sm_90a on 9.0 alone.
bool runs_on(std::string_view architectures, const Gpu& gpu);

// Throws Error(device) with its cure where the GPU of that number, counted round, cannot be used.
void check_gpu(const Gpus& gpus, int number);

}  // namespace ziggurat
