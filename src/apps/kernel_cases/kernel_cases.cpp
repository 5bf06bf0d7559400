#include "apps/kernel_cases/lab.h"

namespace ziggurat::apps {

int32_t* Lab::scattered(int64_t n, int64_t limit) {
  auto* x = data_.take<int32_t>(n);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<int32_t>(i * 7919 % limit);
  return x;
}

kernels::Segment* Lab::equal_shares(int64_t n, int64_t experts) {
  auto* x = data_.take<kernels::Segment>(experts);
  const int64_t rows = n / experts;
  for (int64_t e = 0; e < experts; ++e) x[e] = {e * rows, rows, static_cast<int32_t>(e), 0};
  return x;
}

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> list;
  add_products(list);
  add_layers(list);
  add_moe(list);
  add_slabs(list);
  return list;
}

}  // namespace ziggurat::apps
