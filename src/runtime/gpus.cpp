#include <algorithm>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/gpus.h>

namespace ziggurat {

bool runs_on(std::string_view architectures, const Gpu& gpu) {
  while (!architectures.empty()) {
    const size_t end = std::min(architectures.find(' '), architectures.size());
    std::string_view name = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    if (!name.starts_with("sm_")) continue;
    name.remove_prefix(3);
    int number = 0;
    while (!name.empty() && '0' <= name.front() && name.front() <= '9') {
      number = 10 * number + (name.front() - '0');
      name.remove_prefix(1);
    }
    const bool exact = !name.empty() && name.front() == 'a';
    const int major = number / 10, minor = number % 10;
    if (major == gpu.major && (exact ? minor == gpu.minor : minor <= gpu.minor)) return true;
  }
  return false;
}

void check_gpu(const Gpus& gpus, int number) {
  check(gpus.problem.empty() && !gpus.all.empty(), ErrorKind::device, "device=cuda: {}: {}", gpus.problem,
        gpus.cure);
  const Gpu& gpu = gpus.all[static_cast<size_t>(number) % gpus.all.size()];
  check(runs_on(gpus.built_for, gpu), ErrorKind::device,
        "device=cuda: this build has kernels for {}, but {} has compute capability {}.{}: build with "
        "-DCMAKE_CUDA_ARCHITECTURES={}{}-real, or use device=cpu",
        gpus.built_for, gpu.name, gpu.major, gpu.minor, gpu.major, gpu.minor);
}

}  // namespace ziggurat
