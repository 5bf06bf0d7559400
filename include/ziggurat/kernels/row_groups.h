// Which of some rows belong to which expert, by offsets that lie where the rows lie: the host need not know
// them.
#pragma once

#include <cstdint>

namespace ziggurat::kernels {

// Rows [offsets[g], offsets[g + 1]) belong to group g = expert * sources + source: to that local expert, from
// that rank of the expert-parallel group. Rows from the last offset on belong to nobody: kernels may compute
// anything there, but never let it into a sum.
struct RowGroups {
  const int32_t* offsets = nullptr;  // [experts sources + 1], ascending from 0
  int64_t experts = 1, sources = 1;
  constexpr int64_t count() const { return experts * sources; }
};

}  // namespace ziggurat::kernels
