#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat {

Backend& backend(Device device) {
  fail(ErrorKind::device,
       "this build knows no device '{}': build with -DZIGGURAT_CUDA=ON where the CUDA toolkit is, or use the "
       "CPU",
       to_string(device));
}

}  // namespace ziggurat
