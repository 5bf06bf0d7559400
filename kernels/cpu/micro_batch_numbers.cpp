#include <ziggurat/kernels/micro_batch_numbers.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

template <Device D>
void write_numbers(const MicroBatchNumbers& numbers, MicroBatchNumbers* to, Stream&) {
  if (!DryRun::on()) *to = numbers;
}

template void write_numbers<Device::cpu>(const MicroBatchNumbers&, MicroBatchNumbers*, Stream&);

}  // namespace ziggurat::kernels
