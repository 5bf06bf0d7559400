#include <limits>
#include <numeric>

#include "tests/emulation/kernels/compare.h"
#include "tests/emulation/lib/grouped_matmul.h"
#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::emulation {
namespace {

using kernels::Activation;

struct GroupedCase {
  std::vector<int64_t> rows;  // of each group expert * sources + source
  int64_t sources, in, out;
  int64_t behind;  // rows of nobody, behind the last
  size_t shift;    // elements from an address that vectors can be loaded from
};
void PrintTo(const GroupedCase& c, std::ostream* os) {
  *os << c.in << " to " << c.out << ", " << c.sources << " sources, " << c.behind << " rows of nobody, +"
      << c.shift << ", rows";
  for (const int64_t n : c.rows) *os << " " << n;
}

class EmulatedGroupedLinear : public EmulatedTest, public testing::WithParamInterface<GroupedCase> {
 protected:
  EmulatedGroupedLinear() {
    for (const int64_t n : c.rows) offsets.push_back(offsets.back() + static_cast<int32_t>(n));
  }
  template <class T>
  void expect_forward(Activation activation, bool bias);
  template <class T>
  void expect_backward(Activation activation, bool accumulate, bool apart);

  const GroupedCase c = GetParam();
  std::vector<int32_t> offsets = {0};
  const int64_t experts = static_cast<int64_t>(c.rows.size()) / c.sources;
  const int64_t real = std::accumulate(c.rows.begin(), c.rows.end(), int64_t{0}), rows = real + c.behind;
  Arena host{"host", 1 << 24};
  Stream cpu{Device::cpu}, cuda{Device::cuda};
};

template <class T>
std::vector<float> widened(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}
template <class T>
std::vector<T> rounded_to(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

// Values of [rows, cols], with NaNs from row `real` on.
template <class T>
std::vector<T> with_rows_of_nobody(const std::string& name, int64_t rows, int64_t real, int64_t cols) {
  auto all = values<T>(name, static_cast<size_t>(rows * cols));
  std::fill(all.begin() + real * cols, all.end(), T(std::numeric_limits<float>::quiet_NaN()));
  return all;
}
template <class T>
std::vector<T> first(std::vector<T> all, int64_t n) {
  all.resize(static_cast<size_t>(n));
  return all;
}

// The CPU's kernel for f32, which rounds nothing, on the same values.
template <class T>
void EmulatedGroupedLinear::expect_forward(Activation activation, bool bias) {
  const auto x = with_rows_of_nobody<T>("x", rows, real, c.in);
  const auto w = values<T>("w", static_cast<size_t>(experts * c.out * c.in));
  const auto b = values<float>("b", static_cast<size_t>(experts * c.out));
  const auto size = static_cast<size_t>(rows * c.out);
  const DeviceArray<int32_t> d_offsets(offsets);
  const DeviceTensor<T> d_x(x, c.shift), d_w(w, c.shift), d_z(std::vector<T>(size), c.shift),
      d_y(std::vector<T>(size), c.shift);
  const DeviceTensor<float> d_b(b, 0);
  const bool activated = activation != Activation::none;
  Arena device("device", 1 << 20, Device::cuda);
  kernels::grouped_linear_forward<Device::cuda>(
      kernels::GroupedLinearArgs<T>{{d_offsets.data(), experts, c.sources},
                                    rows,
                                    c.in,
                                    c.out,
                                    d_x.data(),
                                    d_w.data(),
                                    0,
                                    bias ? d_b.data() : nullptr,
                                    activation,
                                    d_z.data(),
                                    activated ? d_y.data() : nullptr},
      device, cuda);
  const auto x_f = widened(x), w_f = widened(w);
  std::vector<float> want(size);
  kernels::grouped_linear_forward<Device::cpu>(
      kernels::GroupedLinearArgs<float>{{offsets.data(), experts, c.sources},
                                        rows,
                                        c.in,
                                        c.out,
                                        x_f.data(),
                                        w_f.data(),
                                        0,
                                        bias ? b.data() : nullptr,
                                        Activation::none,
                                        want.data(),
                                        nullptr},
      host, cpu);
  auto z = d_z.get();
  expect_near(first(z, real * c.out), rounded_to<T>(first(want, real * c.out)), "z",
              static_cast<double>(c.in), 2);
  if (!activated) return;
  std::vector<T> y(size);
  kernels::bias_activation_forward<Device::cpu>(
      kernels::BiasActivationArgs<T>{activation, real, c.out, z.data(), nullptr, y.data()}, cpu);
  expect_near(first(d_y.get(), real * c.out), first(y, real * c.out), "y", 1, 8);
}

TEST_P(EmulatedGroupedLinear, ForwardEqualsTheCpus) {
  for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(activation) << ", bias " << bias);
      expect_forward<float>(activation, bias);
      expect_forward<bf16>(activation, bias);
    }
  }
}

// `apart`: gradients of every source for itself; else they share one, which is overwritten if not added to.
template <class T>
void EmulatedGroupedLinear::expect_backward(Activation activation, bool accumulate, bool apart) {
  const int64_t size = experts * c.out * c.in, bias_size = experts * c.out, copies = apart ? c.sources : 1;
  const auto x = with_rows_of_nobody<T>("x", rows, real, c.in),
             z = with_rows_of_nobody<T>("z", rows, real, c.out),
             dy = with_rows_of_nobody<T>("dy", rows, real, c.out);
  const auto w = values<T>("w", static_cast<size_t>(size));
  const auto dx = values<T>("dx", static_cast<size_t>(rows * c.in));
  auto dw = values<float>("dw", static_cast<size_t>(copies * size)),
       db = values<float>("db", static_cast<size_t>(copies * bias_size));
  const bool overwrite = !accumulate && !apart;
  Arena device("device", 1 << 20, Device::cuda);
  const DeviceArray<int32_t> d_offsets(offsets);
  const DeviceTensor<T> d_x(x, c.shift), d_w(w, c.shift), d_z(z, c.shift), d_dy(dy, c.shift),
      d_dx(dx, c.shift);
  const DeviceTensor<float> d_dw(dw, c.shift), d_db(db, 0);
  const auto backward = [&]<Device D, class V>(const int32_t* at, const V* x_of, const V* w_of, Activation f,
                                               const V* z_of, const V* dy_of, V* dx_of, float* dw_of,
                                               float* db_of, Arena& workspace, Stream& stream) {
    const kernels::GroupedLinearArgs<V> forward{
        {at, experts, c.sources}, rows,   c.in, c.out, x_of, w_of, 0, nullptr, f,
        const_cast<V*>(z_of),     nullptr};
    kernels::grouped_linear_backward<D>(
        kernels::GroupedLinearGradArgs<V>{forward, dy_of, dx_of, accumulate, dw_of, apart ? size : 0, db_of,
                                          apart ? bias_size : 0, overwrite},
        workspace, stream);
  };
  backward.template operator()<Device::cuda, T>(d_offsets.data(), d_x.data(), d_w.data(), activation,
                                                d_z.data(), d_dy.data(), d_dx.data(), d_dw.data(),
                                                d_db.data(), device, cuda);
  std::vector<T> dz = dy;
  if (activation != Activation::none) {
    kernels::bias_activation_backward<Device::cpu>(
        kernels::BiasActivationGradArgs<T>{activation, real, c.out, z.data(), dy.data(), dz.data(), nullptr},
        host, cpu);
  }
  const auto x_f = widened(x), w_f = widened(w), z_f = widened(z), dz_f = widened(dz);
  auto dx_f = widened(dx);
  backward.template operator()<Device::cpu, float>(offsets.data(), x_f.data(), w_f.data(), Activation::none,
                                                   z_f.data(), dz_f.data(), dx_f.data(), dw.data(), db.data(),
                                                   host, cpu);
  // Where the GELU's derivative fell beside a rounding, dz differs in its last place.
  const double doubt = activation == Activation::none ? 2 : 2 + 0x1p24 * kLastPlace<T> / 16;
  expect_near(first(d_dx.get(), real * c.in), rounded_to<T>(first(dx_f, real * c.in)), "dx",
              static_cast<double>(c.out), doubt);
  expect_near(d_dw.get(), dw, "dweight", static_cast<double>(real + 1), doubt);
  expect_near(d_db.get(), db, "dbias", static_cast<double>(real + 1), doubt);
}

TEST_P(EmulatedGroupedLinear, GradientsEqualTheCpus) {
  for (const Activation activation : {Activation::none, Activation::gelu_tanh}) {
    for (const bool accumulate : {false, true}) {
      for (const bool apart : {false, true}) {
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(activation) << ", accumulate "
                                        << accumulate << ", sources apart " << apart);
        expect_backward<float>(activation, accumulate, apart);
        expect_backward<bf16>(activation, accumulate, apart);
      }
    }
  }
}

// A library does what suits it, and leaves the rest to our kernels.
TEST_P(EmulatedGroupedLinear, ByALibraryTheyEqualTheCpusToo) {
  const GroupedLibrary library;
  const bool suits = c.in % 8 == 0 && c.out % 8 == 0 && c.shift == 0 && rows > 0;
  for (const Activation activation : {Activation::none, Activation::gelu_tanh}) {
    for (const bool bias : {false, true}) expect_forward<bf16>(activation, bias);
    for (const bool accumulate : {false, true}) {
      for (const bool apart : {false, true}) expect_backward<bf16>(activation, accumulate, apart);
    }
  }
  EXPECT_EQ(counts("grouped_matmul<forward>").launches, suits ? 2 * 2 : 0);
  EXPECT_EQ(counts("grouped_matmul<dx>").launches, suits ? 2 * 4 : 0);
  EXPECT_EQ(counts("grouped_matmul<dweight>").launches, suits ? 2 * 4 : 0);
}

// None, fewer and more rows than a tile; sizes that fill tiles and steps, and that no vectors fit; more
// groups than lanes.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedGroupedLinear,
                         testing::Values(GroupedCase{{0, 0}, 1, 8, 8, 0, 0}, GroupedCase{{1}, 1, 1, 1, 0, 0},
                                         GroupedCase{{3, 0, 5}, 1, 24, 40, 6, 0},
                                         GroupedCase{{0, 1, 4, 3}, 2, 7, 5, 2, 0},
                                         GroupedCase{{70, 0, 140, 2}, 2, 136, 72, 30, 0},
                                         GroupedCase{{65, 9}, 1, 16, 136, 0, 1},
                                         GroupedCase{std::vector<int64_t>(40, 2), 1, 8, 16, 3, 0}));

}  // namespace
}  // namespace ziggurat::emulation
