#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/embedding.h>

namespace ziggurat::emulation {
namespace {

struct EmbeddingCase {
  int64_t rows, cols, vocabulary, length;
  size_t shift;  // elements from an address that vectors can be loaded from
};
void PrintTo(const EmbeddingCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.cols << " of " << c.vocabulary << " length " << c.length << "+" << c.shift;
}

class EmulatedEmbedding : public EmulatedTest, public testing::WithParamInterface<EmbeddingCase> {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

class EmulatedPart : public EmulatedTest {
 protected:
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

enum class Positions { none, counted, given };

std::vector<int32_t> ids(const std::string& name, int64_t n, int64_t below) {
  std::vector<int32_t> result;
  for (const float value : values<float>(name, static_cast<size_t>(n), 1000.0)) {
    result.push_back(static_cast<int32_t>(std::abs(value)) % static_cast<int32_t>(below));
  }
  return result;
}

template <class T>
void expect_forward(const EmbeddingCase& c, Positions form, Stream& cpu, Stream& cuda) {
  const auto n = static_cast<size_t>(c.rows * c.cols);
  const auto tokens = ids("tokens", c.rows, c.vocabulary), positions = ids("positions", c.rows, c.length);
  const auto table = values<T>("table", static_cast<size_t>(c.vocabulary * c.cols));
  const auto places = values<T>("places", static_cast<size_t>(c.length * c.cols));
  std::vector<T> y(n);
  const DeviceTensor<int32_t> d_tokens(tokens, 0), d_positions(positions, 0);
  const DeviceTensor<T> d_table(table, c.shift), d_places(places, c.shift), d_y(y, c.shift);
  const bool given = form == Positions::given, none = form == Positions::none;
  kernels::embedding_forward<Device::cpu>(
      kernels::EmbeddingArgs<T>{c.rows, c.cols, tokens.data(), c.length, given ? positions.data() : nullptr,
                                table.data(), none ? nullptr : places.data(), y.data()},
      cpu);
  kernels::embedding_forward<Device::cuda>(
      kernels::EmbeddingArgs<T>{c.rows, c.cols, d_tokens.data(), c.length,
                                given ? d_positions.data() : nullptr, d_table.data(),
                                none ? nullptr : d_places.data(), d_y.data()},
      cuda);
  expect_near(d_y.get(), y, "y", 1, 0);
}

// Sums are taken in the CPU's order: the same bits.
template <class T>
void expect_backward(const EmbeddingCase& c, Positions form, Stream& cpu, Stream& cuda) {
  const auto tokens = ids("tokens", c.rows, c.vocabulary), positions = ids("positions", c.rows, c.length);
  const auto dy = values<T>("dy", static_cast<size_t>(c.rows * c.cols));
  auto dtable = values<float>("dtable", static_cast<size_t>(c.vocabulary * c.cols));
  auto dplaces = values<float>("dplaces", static_cast<size_t>(c.length * c.cols));
  const DeviceTensor<int32_t> d_tokens(tokens, 0), d_positions(positions, 0);
  const DeviceTensor<T> d_dy(dy, c.shift);
  const DeviceTensor<float> d_dtable(dtable, c.shift), d_dplaces(dplaces, c.shift);
  const bool given = form == Positions::given, none = form == Positions::none;
  kernels::embedding_backward<Device::cpu>(
      kernels::EmbeddingGradArgs<T>{c.rows, c.cols, tokens.data(), c.length,
                                    given ? positions.data() : nullptr, dy.data(), dtable.data(),
                                    none ? nullptr : dplaces.data()},
      cpu);
  kernels::embedding_backward<Device::cuda>(
      kernels::EmbeddingGradArgs<T>{c.rows, c.cols, d_tokens.data(), c.length,
                                    given ? d_positions.data() : nullptr, d_dy.data(), d_dtable.data(),
                                    none ? nullptr : d_dplaces.data()},
      cuda);
  EXPECT_EQ(d_dtable.get(), dtable);
  EXPECT_EQ(d_dplaces.get(), dplaces);
}

TEST_P(EmulatedEmbedding, EqualsTheCpu) {
  for (const Positions form : {Positions::none, Positions::counted, Positions::given}) {
    SCOPED_TRACE(testing::Message() << "positions " << static_cast<int>(form));
    expect_forward<float>(GetParam(), form, cpu, cuda);
    expect_forward<bf16>(GetParam(), form, cpu, cuda);
    expect_backward<float>(GetParam(), form, cpu, cuda);
    expect_backward<bf16>(GetParam(), form, cpu, cuda);
  }
}

// Of a table that ranks share: tokens of other parts have no row.
TEST_F(EmulatedPart, EqualsTheCpu) {
  constexpr int64_t kRows = 40, kCols = 12, kPart = 5;
  const auto tokens = ids("tokens", kRows, 3 * kPart);
  std::vector<int32_t> own(tokens.size());
  const DeviceTensor<int32_t> d_tokens(tokens, 0), d_own(own, 0);
  kernels::rows_of_part<Device::cpu>({kRows, tokens.data(), kPart, kPart, tokens[3], own.data()}, cpu);
  kernels::rows_of_part<Device::cuda>({kRows, d_tokens.data(), kPart, kPart, tokens[3], d_own.data()}, cuda);
  ASSERT_EQ(d_own.get(), own);
  EXPECT_GT(std::count(own.begin(), own.end(), -1), 0);
  EXPECT_LT(std::count(own.begin(), own.end(), -1), kRows);

  const DeviceTensor<int32_t> positions(std::vector<int32_t>(10), 0);
  kernels::count_positions<Device::cuda>(4, 10, 6, positions.data(), cuda);
  EXPECT_EQ(positions.get(), (std::vector<int32_t>{4, 5, 0, 1, 2, 3, 4, 5, 0, 1}));

  const auto table = values<float>("table", kPart * kCols), dy = values<float>("dy", kRows * kCols);
  std::vector<float> y(kRows * kCols), dtable(kPart * kCols);
  const DeviceTensor<float> d_table(table, 0), d_dy(dy, 0), d_y(y, 0), d_dtable(dtable, 0);
  kernels::embedding_forward<Device::cpu>(
      kernels::EmbeddingArgs<float>{kRows, kCols, own.data(), 1, nullptr, table.data(), nullptr, y.data()},
      cpu);
  kernels::embedding_forward<Device::cuda>(
      kernels::EmbeddingArgs<float>{kRows, kCols, d_own.data(), 1, nullptr, d_table.data(), nullptr,
                                    d_y.data()},
      cuda);
  EXPECT_EQ(d_y.get(), y);
  kernels::embedding_backward<Device::cpu>(
      kernels::EmbeddingGradArgs<float>{kRows, kCols, own.data(), 1, nullptr, dy.data(), dtable.data()}, cpu);
  kernels::embedding_backward<Device::cuda>(
      kernels::EmbeddingGradArgs<float>{kRows, kCols, d_own.data(), 1, nullptr, d_dy.data(), d_dtable.data()},
      cuda);
  EXPECT_EQ(d_dtable.get(), dtable);
}

// Few tokens, so that they repeat, within 128 rows and beyond; many columns.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedEmbedding,
                         testing::Values(EmbeddingCase{0, 8, 5, 4, 0}, EmbeddingCase{1, 1, 1, 1, 0},
                                         EmbeddingCase{9, 7, 4, 3, 0}, EmbeddingCase{12, 8, 50, 4, 1},
                                         EmbeddingCase{300, 16, 7, 100, 0}, EmbeddingCase{6, 1040, 3, 2, 0}));

}  // namespace
}  // namespace ziggurat::emulation
