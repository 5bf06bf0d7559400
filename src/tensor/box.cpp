#include <algorithm>

#include <ziggurat/tensor/box.h>

namespace ziggurat {

namespace {

// Elements from one index of this dim to the next.
int64_t stride_of(const Shape& shape, int dim) {
  int64_t stride = 1;
  for (int i = dim + 1; i < shape.rank(); ++i) stride *= shape[i];
  return stride;
}

// Where an element of the tensor lies in memory that holds the box.
int64_t place(const Box& box, const Shape& at) {
  int64_t element = 0;
  for (int i = 0; i < at.rank(); ++i) element = element * box.extent[i] + at[i] - box.begin[i];
  return element;
}

}  // namespace

Shape with(const Shape& shape, int dim, int64_t n) {
  const auto at = [&](int i) { return i == dim ? n : shape[i]; };
  switch (shape.rank()) {
    case 1:
      return {at(0)};
    case 2:
      return {at(0), at(1)};
    case 3:
      return {at(0), at(1), at(2)};
    default:
      return {at(0), at(1), at(2), at(3)};
  }
}

std::string Box::str() const {
  std::string text = "[";
  for (int i = 0; i < begin.rank(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(begin[i]) + ":" + std::to_string(end(i));
  }
  return text + "]";
}

Box rows_of(const Shape& shape, int64_t begin, int64_t end) {
  check(shape.rank() >= 1 && begin <= end, ErrorKind::internal, "[box] rows [{}, {}) of {}", begin, end,
        shape);
  Box box{shape, with(shape, 0, end - begin)};
  for (int i = 0; i < shape.rank(); ++i) box.begin = with(box.begin, i, i == 0 ? begin : 0);
  return box;
}

std::vector<Box> boxes_of(const Shape& shape, int64_t begin, int64_t end) {
  check(0 <= begin && begin <= end && end <= shape.numel(), ErrorKind::internal,
        "[box] elements [{}, {}) of {}", begin, end, shape);
  std::vector<Box> boxes;
  while (begin < end) {
    // The outermost dim of which whole indices begin here and fit.
    int dim = 0;
    while (begin % stride_of(shape, dim) != 0 || begin + stride_of(shape, dim) > end) ++dim;
    Box box{shape, shape};
    int64_t count = 0;
    for (int i = 0; i <= dim; ++i) {
      const int64_t stride = stride_of(shape, i), index = begin / stride % shape[i];
      count = i < dim ? 1 : std::min(shape[i] - index, (end - begin) / stride);
      box.begin = with(box.begin, i, index);
      box.extent = with(box.extent, i, count);
    }
    for (int i = dim + 1; i < shape.rank(); ++i) box.begin = with(box.begin, i, 0);
    boxes.push_back(box);
    begin += box.numel();
  }
  return boxes;
}

bool fits(const Box& box, const Shape& shape) {
  if (box.begin.rank() != shape.rank() || box.extent.rank() != shape.rank()) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    if (box.extent[i] > shape[i] || box.begin[i] > shape[i] - box.extent[i]) return false;
  }
  return true;
}

Box common(const Box& a, const Box& b) {
  Box both = a;
  for (int i = 0; i < a.begin.rank(); ++i) {
    const int64_t begin = std::max(a.begin[i], b.begin[i]), end = std::min(a.end(i), b.end(i));
    both.begin = with(both.begin, i, begin);
    both.extent = with(both.extent, i, std::max<int64_t>(0, end - begin));
  }
  return both;
}

void for_each_run(const Box& a, const Box& b,
                  const std::function<void(int64_t in_a, int64_t in_b, int64_t n)>& f) {
  const Box both = common(a, b);
  if (both.numel() == 0) return;
  // Dims after `dim` are whole in both memories, so a run goes through `dim`.
  const int rank = both.begin.rank();
  int dim = std::max(0, rank - 1);
  const auto is_whole = [&](int i) { return both.extent[i] == a.extent[i] && both.extent[i] == b.extent[i]; };
  while (dim > 0 && is_whole(dim)) --dim;
  const int64_t run = rank == 0 ? 1 : both.extent[dim] * stride_of(both.extent, dim);
  for (int64_t done = 0; done < both.numel(); done += run) {
    Shape at = both.begin;
    for (int i = 0; i < dim; ++i) {
      at = with(at, i, both.begin[i] + done / stride_of(both.extent, i) % both.extent[i]);
    }
    f(place(a, at), place(b, at), run);
  }
}

}  // namespace ziggurat
