#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/dispatch.h>

namespace ziggurat::emulation {
namespace {

struct RowsCase {
  int64_t rows, width, top_k;
  size_t shift;  // elements from an address that vectors can be loaded from
};
void PrintTo(const RowsCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.width << " top-" << c.top_k << "+" << c.shift;
}

class EmulatedDispatch : public EmulatedTest, public testing::WithParamInterface<RowsCase> {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

// `count` of the rows 0 .. 2 count - 1, none twice, in a random order.
std::vector<int32_t> some_rows(size_t count) {
  std::vector<int32_t> rows(2 * count);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::shuffle(rows.begin(), rows.end(), std::mt19937_64(5));
  rows.resize(count);
  return rows;
}

template <class T>
void expect_moves(const RowsCase& c, Stream& cpu, Stream& cuda) {
  const auto rows = static_cast<size_t>(c.rows), width = static_cast<size_t>(c.width);
  std::vector<int32_t> table = some_rows(rows);
  for (size_t i = 1; i < rows; i += 4) table[i] = -1;  // nobody's
  const DeviceTensor<int32_t> d_table(table, 0);
  const auto x = values<T>("x", 2 * rows * width);
  const DeviceTensor<T> d_x(x, c.shift);
  std::vector<T> gathered(rows * width);
  const DeviceTensor<T> d_gathered(gathered, c.shift);
  kernels::gather_rows<Device::cpu>(
      kernels::GatherRowsArgs<T>{c.rows, c.width, x.data(), table.data(), gathered.data()}, cpu);
  kernels::gather_rows<Device::cuda>(
      kernels::GatherRowsArgs<T>{c.rows, c.width, d_x.data(), d_table.data(), d_gathered.data()}, cuda);
  expect_near(d_gathered.get(), gathered, "gathered", 1, 0);
  for (const bool accumulate : {false, true}) {
    auto y = values<T>("y", 2 * rows * width);
    const DeviceTensor<T> d_y(y, c.shift);
    kernels::scatter_rows<Device::cpu>(
        kernels::ScatterRowsArgs<T>{c.rows, c.width, x.data(), table.data(), accumulate, y.data()}, cpu);
    kernels::scatter_rows<Device::cuda>(
        kernels::ScatterRowsArgs<T>{c.rows, c.width, d_x.data(), d_table.data(), accumulate, d_y.data()},
        cuda);
    expect_near(d_y.get(), y, accumulate ? "scattered and added" : "scattered", 1, 0);
  }
}

TEST_P(EmulatedDispatch, MovedRowsEqualTheCpus) {
  expect_moves<float>(GetParam(), cpu, cuda);
  expect_moves<bf16>(GetParam(), cpu, cuda);
}

class EmulatedArrivals : public EmulatedTest {};

TEST_F(EmulatedArrivals, AreInTheCpusOrder) {
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  Stream cpu{Device::cpu}, cuda{Device::cuda};
  for (const auto& [ranks, experts] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {4, 40}}) {
    for (const int64_t sources : {int64_t{1}, ranks}) {
      std::vector<int32_t> arriving(static_cast<size_t>(ranks * experts));
      int64_t rows = 0;
      for (size_t i = 0; i < arriving.size(); ++i) rows += arriving[i] = static_cast<int32_t>(i * 7 % 5 * 40);
      std::vector<int32_t> offsets(static_cast<size_t>(experts * sources + 1)),
          arrival(static_cast<size_t>(rows)), row(arrival.size());
      const DeviceArray<int32_t> d_arriving(arriving), d_offsets(offsets.size()), d_arrival(arrival.size()),
          d_row(row.size());
      kernels::order_arrivals<Device::cpu>(
          {ranks, experts, rows, arriving.data(), sources, offsets.data(), arrival.data(), row.data()}, host,
          cpu);
      kernels::order_arrivals<Device::cuda>({ranks, experts, rows, d_arriving.data(), sources,
                                             d_offsets.data(), d_arrival.data(), d_row.data()},
                                            device, cuda);
      EXPECT_EQ(d_offsets.get(), offsets);
      EXPECT_EQ(d_arrival.get(), arrival);
      EXPECT_EQ(d_row.get(), row);
    }
  }
}

// As many places for each source and expert, of which the last are nobody's.
TEST_F(EmulatedArrivals, InBlocksAreInTheCpusOrder) {
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  Stream cpu{Device::cpu}, cuda{Device::cuda};
  for (const auto& [ranks, experts] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {4, 40}}) {
    for (const int64_t sources : {int64_t{1}, ranks}) {
      constexpr int64_t kBlock = 161;
      std::vector<int32_t> arriving(static_cast<size_t>(ranks * experts));
      for (size_t i = 0; i < arriving.size(); ++i) arriving[i] = static_cast<int32_t>((i * 7 + 3) % 5 * 40);
      const int64_t rows = ranks * experts * kBlock;
      std::vector<int32_t> offsets(static_cast<size_t>(experts * sources + 1)),
          arrival(static_cast<size_t>(rows)), row(arrival.size());
      const DeviceArray<int32_t> d_arriving(arriving), d_offsets(offsets.size()), d_arrival(arrival.size()),
          d_row(row.size());
      kernels::order_arrivals<Device::cpu>({ranks, experts, rows, arriving.data(), sources, offsets.data(),
                                            arrival.data(), row.data(), kBlock},
                                           host, cpu);
      kernels::order_arrivals<Device::cuda>({ranks, experts, rows, d_arriving.data(), sources,
                                             d_offsets.data(), d_arrival.data(), d_row.data(), kBlock},
                                            device, cuda);
      EXPECT_EQ(d_offsets.get(), offsets);
      EXPECT_EQ(d_arrival.get(), arrival);
      EXPECT_EQ(d_row.get(), row);
      for (int64_t r = 0; r < offsets.back(); ++r) {
        const int32_t place = arrival[static_cast<size_t>(r)];
        EXPECT_EQ(row[static_cast<size_t>(place)], r);
        EXPECT_LT(place % kBlock, arriving[static_cast<size_t>(place / kBlock)]);
      }
    }
  }
}

template <class T>
void expect_combined(const RowsCase& c, bool weighted, bool accumulate, Stream& cpu, Stream& cuda) {
  const auto tokens = static_cast<size_t>(c.rows), width = static_cast<size_t>(c.width);
  const size_t choices = tokens * static_cast<size_t>(c.top_k);
  std::vector<int32_t> row = some_rows(choices);
  for (size_t i = 0; i < choices; i += 3) row[i] = -1;  // dropped
  const auto x = values<T>("x", 2 * choices * width), dy = values<T>("dy", tokens * width);
  const auto weights = values<float>("weights", choices);
  auto y = values<T>("y", tokens * width), dx = values<T>("dx", 2 * choices * width);
  auto dweights = values<float>("dweights", choices);
  const DeviceTensor<int32_t> d_row(row, 0);
  const DeviceTensor<T> d_x(x, c.shift), d_dy(dy, c.shift), d_y(y, c.shift), d_dx(dx, c.shift);
  const DeviceTensor<float> d_weights(weights, 0), d_dweights(dweights, 0);
  kernels::CombineRowsArgs<T> args{c.rows,     c.top_k,    c.width,
                                   x.data(),   row.data(), weighted ? weights.data() : nullptr,
                                   accumulate, y.data()};
  kernels::CombineRowsArgs<T> device_args{c.rows,     c.top_k,      c.width,
                                          d_x.data(), d_row.data(), weighted ? d_weights.data() : nullptr,
                                          accumulate, d_y.data()};
  kernels::combine_rows<Device::cpu>(args, cpu);
  kernels::combine_rows<Device::cuda>(device_args, cuda);
  expect_near(d_y.get(), y, "y", static_cast<double>(c.top_k), 8);

  kernels::CombineRowsGradArgs<T> grad{
      args, dy.data(), dx.data(), accumulate, weighted ? dweights.data() : nullptr, accumulate};
  kernels::CombineRowsGradArgs<T> device_grad{
      device_args, d_dy.data(), d_dx.data(), accumulate, weighted ? d_dweights.data() : nullptr, accumulate};
  kernels::combine_rows_backward<Device::cpu>(grad, cpu);
  kernels::combine_rows_backward<Device::cuda>(device_grad, cuda);
  expect_near(d_dx.get(), dx, "dx", 1, 8);
  expect_near(d_dweights.get(), dweights, "dweights", static_cast<double>(c.width), 8);
}

TEST_P(EmulatedDispatch, CombinedRowsAndGradientsEqualTheCpus) {
  for (const bool weighted : {true, false}) {
    for (const bool accumulate : {true, false}) {
      SCOPED_TRACE(testing::Message() << "weighted " << weighted << ", accumulate " << accumulate);
      expect_combined<float>(GetParam(), weighted, accumulate, cpu, cuda);
      expect_combined<bf16>(GetParam(), weighted, accumulate, cpu, cuda);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedDispatch,
                         testing::Values(RowsCase{0, 8, 1, 0}, RowsCase{3, 0, 1, 0}, RowsCase{1, 1, 1, 0},
                                         RowsCase{7, 5, 2, 0}, RowsCase{7, 8, 2, 0}, RowsCase{4, 64, 3, 1},
                                         RowsCase{3, 1040, 2, 0}));

}  // namespace
}  // namespace ziggurat::emulation
