#include "tests/emulation/ops/device_and_cpu.h"

namespace ziggurat::emulation {

void expect_device_equals_cpu(const test::OpCase& c) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto want = test::run_op(c, Device::cpu, dtype, dtype);
    const auto got = test::run_op(c, Device::cuda, dtype, dtype);
    EXPECT_FALSE(all_counts().empty()) << "no kernel ran on the device";
    test::expect_same_results(got, want, dtype);
  }
}

}  // namespace ziggurat::emulation
