#include <ziggurat/runtime/gpus.h>

namespace ziggurat {

Gpus look_for_gpus() {
  Gpus none;
  none.problem = "this build has no CUDA";
  none.cure = "build with -DZIGGURAT_CUDA=ON where the CUDA toolkit is, or use device=cpu";
  return none;
}
std::string built_for_gpus() { return ""; }
std::string gpu_libraries() { return ""; }

}  // namespace ziggurat
