#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random_values.h"
#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::kernels {
namespace {

// y of [first, first + rows) of x, and dx from their rows of dy, as the only rows of the last of two experts.
template <class T>
struct Products {
  std::vector<T> y, dx;
};
template <class T>
Products<T> multiply(int64_t first, int64_t rows, int64_t in, int64_t out, const std::vector<T>& x,
                     const std::vector<T>& dy, const std::vector<T>& weight) {
  Arena workspace("workspace", int64_t{1} << 24);
  Stream stream(Device::cpu, Reproducible::strict);
  const int32_t offsets[] = {0, 0, static_cast<int32_t>(rows)};
  Products<T> result{std::vector<T>(static_cast<size_t>(rows * out)),
                     std::vector<T>(static_cast<size_t>(rows * in))};
  GroupedLinearArgs<T> forward;
  forward.groups = {offsets, 2};
  forward.rows = rows;
  forward.in = in;
  forward.out = out;
  forward.x = x.data() + first * in;
  forward.weight = weight.data();
  forward.z = result.y.data();
  grouped_linear_forward<Device::cpu>(forward, workspace, stream);
  GroupedLinearGradArgs<T> backward;
  backward.forward = forward;
  backward.dy = dy.data() + first * out;
  backward.dx = result.dx.data();
  grouped_linear_backward<Device::cpu>(backward, workspace, stream);
  return result;
}

template <class T>
void expect_rows_to_depend_on_no_others(int64_t in, int64_t out) {
  constexpr int64_t kRows = 300;  // more than a unit
  const std::vector<T> x = test::random_values<T>(kRows * in, 1), dy = test::random_values<T>(kRows * out, 2),
                       weight = test::random_values<T>(2 * out * in, 3);
  const Products<T> all = multiply(0, kRows, in, out, x, dy, weight);
  for (int64_t rows = 1; rows < kRows; rows += rows < 100 ? 1 : 23) {
    for (const int64_t first : {int64_t{0}, kRows - rows}) {
      const Products<T> some = multiply(first, rows, in, out, x, dy, weight);
      EXPECT_TRUE(std::equal(some.y.begin(), some.y.end(), all.y.begin() + first * out))
          << in << " to " << out << ", " << rows << " rows from " << first;
      EXPECT_TRUE(std::equal(some.dx.begin(), some.dx.end(), all.dx.begin() + first * in))
          << in << " to " << out << ", gradients of " << rows << " rows from " << first;
    }
  }
}

TEST(GroupedLinear, RowsOfAStrictProductDependOnNoOthers) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{32, 96}, {130, 65}, {768, 520}}) {
    expect_rows_to_depend_on_no_others<float>(in, out);
    expect_rows_to_depend_on_no_others<bf16>(in, out);
  }
}

}  // namespace
}  // namespace ziggurat::kernels
