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

// Few tokens, so that they repeat, within 128 rows and beyond; many columns.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedEmbedding,
                         testing::Values(EmbeddingCase{0, 8, 5, 4, 0}, EmbeddingCase{1, 1, 1, 1, 0},
                                         EmbeddingCase{9, 7, 4, 3, 0}, EmbeddingCase{12, 8, 50, 4, 1},
                                         EmbeddingCase{300, 16, 7, 100, 0}, EmbeddingCase{6, 1040, 3, 2, 0}));

}  // namespace
}  // namespace ziggurat::emulation
