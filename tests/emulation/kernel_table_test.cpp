// No kernel moves more than its floor without a reason.
#include "tests/emulation/kernel_table.h"

#include <set>

#include "tests/emulation/emulated_test.h"

namespace ziggurat::emulation {
namespace {

using KernelTable = EmulatedTest;

TEST_F(KernelTable, KernelsMoveWhatTheirFloorsSay) {
  std::set<std::string> counted;
  for (const apps::KernelCase& kernel : apps::kernel_cases(Device::cuda, apps::CaseSize::counted)) {
    const TableRow row = table_row(kernel);
    SCOPED_TRACE(testing::Message() << kernel.name << ", " << kernel.shape << ", "
                                    << to_string(kernel.dtype));
    EXPECT_GT(row.total.launches, 0);
    if (!row.counted()) continue;
    counted.insert(kernel.name);
    const Allowance allowed = allowance(kernel.name);
    const Limits& limits = kernel.dtype == DType::bf16 ? allowed.bf16 : allowed.f32;
    EXPECT_LE(row.moved(), limits.moved)
        << "sectors of 32 bytes: " << row.sectors() << ", bytes of the floor: " << kernel.floor.bytes << "; "
        << allowed.why;
    EXPECT_GE(row.used(), limits.used) << "not coalesced: threads asked for " << row.asked_bytes()
                                       << " bytes in " << row.sectors() << " sectors; " << allowed.why;
  }
  for (const Allowance& allowed : allowances()) {
    EXPECT_TRUE(counted.contains(allowed.kernel)) << allowed.kernel << " is no case";
  }
}

}  // namespace
}  // namespace ziggurat::emulation
