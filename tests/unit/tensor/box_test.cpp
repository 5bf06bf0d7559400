#include <numeric>

#include <gtest/gtest.h>

#include <ziggurat/tensor/box.h>

namespace ziggurat::test {
namespace {

// The elements of a tensor, as numbers, that lie in a box, row by row.
std::vector<int64_t> elements_of(const Shape& shape, const Box& box) {
  std::vector<int64_t> inside;
  for (int64_t element = 0; element < shape.numel(); ++element) {
    int64_t rest = element;
    bool in = true;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      const int64_t at = rest % shape[d];
      in &= box.begin[d] <= at && at < box.end(d);
      rest /= shape[d];
    }
    if (in) inside.push_back(element);
  }
  return inside;
}

const std::vector<Shape> kShapes = {{7}, {3, 4}, {1, 5}, {2, 3, 4}, {3, 1, 4}, {2, 2, 3, 2}};

TEST(Box, RangesAreAFewBoxesInOrder) {
  for (const Shape& shape : kShapes) {
    for (int64_t begin = 0; begin <= shape.numel(); ++begin) {
      for (int64_t end = begin; end <= shape.numel(); ++end) {
        std::vector<int64_t> got, want(static_cast<size_t>(end - begin));
        std::iota(want.begin(), want.end(), begin);
        const std::vector<Box> boxes = boxes_of(shape, begin, end);
        EXPECT_LE(boxes.size(), static_cast<size_t>(2 * shape.rank() - 1));
        for (const Box& box : boxes) {
          EXPECT_TRUE(fits(box, shape));
          const std::vector<int64_t> elements = elements_of(shape, box);
          got.insert(got.end(), elements.begin(), elements.end());
        }
        ASSERT_EQ(got, want) << shape.str() << begin << " " << end;
      }
    }
    EXPECT_EQ(boxes_of(shape, 0, shape.numel()), std::vector{rows_of(shape, 0, shape[0])}) << "one is enough";
  }
}

TEST(Box, RunsAreWhatTwoBoxesHaveInCommon) {
  for (const Shape& shape : kShapes) {
    std::vector<Box> some;
    for (int64_t begin = 0; begin < shape.numel(); begin += 2) {
      for (int64_t end = begin + 1; end <= shape.numel(); end += 3) {
        for (const Box& box : boxes_of(shape, begin, end)) some.push_back(box);
      }
    }
    Box columns = rows_of(shape, 0, shape[0]);
    const int last = shape.rank() - 1;
    columns.begin = with(columns.begin, last, 1),
    columns.extent = with(columns.extent, last, shape[last] - 1);
    some.push_back(columns);
    for (const Box& a : some) {
      for (const Box& b : {some.front(), some[some.size() / 2], columns}) {
        const std::vector<int64_t> of_a = elements_of(shape, a), of_b = elements_of(shape, b);
        std::vector<int64_t> got;
        for_each_run(a, b, [&](int64_t in_a, int64_t in_b, int64_t n) {
          for (int64_t i = 0; i < n; ++i) {
            got.push_back(of_a.at(static_cast<size_t>(in_a + i)));
            EXPECT_EQ(got.back(), of_b.at(static_cast<size_t>(in_b + i)));
          }
        });
        ASSERT_EQ(got, elements_of(shape, common(a, b))) << a.str() << b.str();
      }
    }
  }
}

TEST(Box, WholeRowsAreOneRun) {
  int runs = 0;
  for_each_run(rows_of({6, 3, 2}, 0, 4), rows_of({6, 3, 2}, 2, 6),
               [&](int64_t in_a, int64_t in_b, int64_t n) {
                 EXPECT_EQ(std::vector({in_a, in_b, n}), (std::vector<int64_t>{12, 0, 12}));
                 ++runs;
               });
  EXPECT_EQ(runs, 1);
}

TEST(Box, FitsWithoutOverflow) {
  EXPECT_TRUE(fits({{3}, {0}}, {3}));
  EXPECT_FALSE(fits({{1}, {3}}, {3}));
  EXPECT_FALSE(fits({{INT64_MAX}, {2}}, {3}));
  EXPECT_FALSE(fits({{0, 0}, {1, 1}}, {3}));
  EXPECT_EQ((Box{{1, 0}, {2, 6}}.str()), "[1:3, 0:6]");
  EXPECT_THROW(boxes_of({3}, 2, 4), Error);
}

}  // namespace
}  // namespace ziggurat::test
