// Boxes of tensors: what a rank holds of a global one, and what a file does.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// extent[i] elements of dim i, from begin[i] on; both of the tensor's rank.
struct Box {
  Shape begin, extent;

  int64_t end(int dim) const { return begin[dim] + extent[dim]; }
  int64_t numel() const { return extent.numel(); }
  bool operator==(const Box&) const = default;
  std::string str() const;  // "[2:4, 0:6]"
};

// A shape of rank >= 1 with n in one dim.
Shape with(const Shape& shape, int dim, int64_t n);

// Rows [begin, end) of the leading dim of a tensor of rank >= 1.
Box rows_of(const Shape& shape, int64_t begin, int64_t end);

// The boxes that make up elements [begin, end) of a tensor, counted row by row, in this order: as few as
// possible, at most 2 rank - 1.
std::vector<Box> boxes_of(const Shape& shape, int64_t begin, int64_t end);

// Whether it lies within a tensor of this shape.
bool fits(const Box& box, const Shape& shape);

// What two boxes of one tensor have in common; it may have no elements.
Box common(const Box& a, const Box& b);

// Of memory that holds box `a` row by row, and other that holds `b`: calls f(first in a, first in b, n) for
// every n elements that are consecutive in both, which together are common(a, b).
void for_each_run(const Box& a, const Box& b,
                  const std::function<void(int64_t in_a, int64_t in_b, int64_t n)>& f);

}  // namespace ziggurat
