// The numbers travel as the kernel's argument: no memory of the host has to stay as it is until they are
// read.
#include <kernels/cuda/device/launch.h>

#include <ziggurat/kernels/micro_batch_numbers.h>

namespace ziggurat::kernels {

namespace {
__global__ void write_numbers_kernel(MicroBatchNumbers numbers, MicroBatchNumbers* to) { *to = numbers; }
}  // namespace

template <Device D>
void write_numbers(const MicroBatchNumbers& numbers, MicroBatchNumbers* to, Stream& stream) {
  launch(write_numbers_kernel, 1, 1, 0, stream, numbers, to);
}

template void write_numbers<Device::cuda>(const MicroBatchNumbers&, MicroBatchNumbers*, Stream&);

}  // namespace ziggurat::kernels
