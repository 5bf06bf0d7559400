// What the op's test (tests/emulation/ops) does not reach: gradients that nobody wants, and the bytes moved.
#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/qk_norm.h>

namespace ziggurat::emulation {
namespace {

using kernels::QkNormShape;

class EmulatedQkNorm : public EmulatedTest {};

template <class T>
void expect_backward(const QkNormShape& s, bool want_dx, bool want_dq, bool want_dk) {
  const auto rows = static_cast<size_t>(s.qkv.rows()), n = rows * static_cast<size_t>(s.qkv.width()),
             groups = rows * static_cast<size_t>(s.groups());
  const auto x = values<T>("x", n), dy = values<T>("dy", n);
  const auto q = values<float>("q", static_cast<size_t>(s.q_cols())),
             k = values<float>("k", static_cast<size_t>(s.k_cols())), rstd = values<float>("rstd", groups);
  auto dx = values<T>("dx", n);
  auto dq = values<float>("dq", q.size()), dk = values<float>("dk", k.size());
  const DeviceArray<T> d_x(x), d_dy(dy), d_dx(dx);
  const DeviceArray<float> d_q(q), d_k(k), d_rstd(rstd), d_dq(dq), d_dk(dk);
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  kernels::qk_norm_backward<Device::cpu>(
      kernels::QkNormGradArgs<T>{s, x.data(), q.data(), k.data(), rstd.data(), dy.data(),
                                 want_dx ? dx.data() : nullptr, true, want_dq ? dq.data() : nullptr,
                                 want_dk ? dk.data() : nullptr},
      host, cpu);
  kernels::qk_norm_backward<Device::cuda>(
      kernels::QkNormGradArgs<T>{s, d_x.data(), d_q.data(), d_k.data(), d_rstd.data(), d_dy.data(),
                                 want_dx ? d_dx.data() : nullptr, true, want_dq ? d_dq.data() : nullptr,
                                 want_dk ? d_dk.data() : nullptr},
      device, cuda);
  const auto terms = static_cast<double>(n);
  expect_near(d_dx.get(), dx, "dx", terms, 64);
  expect_near(d_dq.get(), dq, "dq", terms, 64);
  expect_near(d_dk.get(), dk, "dk", terms, 64);
}

TEST_F(EmulatedQkNorm, WritesOnlyTheGradientsThatAreWanted) {
  for (const bool per_head : {true, false}) {
    for (const int wanted : {0, 1, 2, 3, 4, 5, 6, 7}) {
      SCOPED_TRACE(testing::Message() << "per head " << per_head << ", wanted " << wanted);
      const QkNormShape shape{{1, 35, 3, 2, 16}, per_head};
      expect_backward<float>(shape, wanted & 1, wanted & 2, wanted & 4);
      expect_backward<bf16>(shape, wanted & 1, wanted & 2, wanted & 4);
    }
  }
}

// Of heads that several ranks share: the sums of this one's, and what comes of all of theirs.
template <class T>
void expect_parts(const QkNormShape& s) {
  const auto rows = static_cast<size_t>(s.qkv.rows()), n = rows * static_cast<size_t>(s.qkv.width()),
             groups = rows * static_cast<size_t>(s.groups());
  const auto x = values<T>("x", n), dy = values<T>("dy", n);
  const auto q = values<float>("q", static_cast<size_t>(s.q_cols())),
             k = values<float>("k", static_cast<size_t>(s.k_cols()));
  std::vector<T> y(n), dx(n);
  std::vector<float> rstd(groups), squares(groups), products(groups), dq(q.size()), dk(k.size());
  const DeviceArray<T> d_x(x), d_dy(dy), d_y(y), d_dx(dx);
  const DeviceArray<float> d_q(q), d_k(k), d_rstd(rstd), d_squares(squares), d_products(products), d_dq(dq),
      d_dk(dk);
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  kernels::qk_norm_squares<Device::cpu>(s, x.data(), squares.data(), cpu);
  kernels::qk_norm_forward<Device::cpu>(
      kernels::QkNormArgs<T>{s, 1e-5f, x.data(), q.data(), k.data(), y.data(), rstd.data(), squares.data()},
      cpu);
  kernels::QkNormGradArgs<T> args{s,         x.data(),  q.data(), k.data(),  rstd.data(),
                                  dy.data(), dx.data(), false,    dq.data(), dk.data()};
  kernels::qk_norm_products<Device::cpu>(args, products.data(), cpu);
  args.products = products.data();
  kernels::qk_norm_backward<Device::cpu>(args, host, cpu);

  kernels::qk_norm_squares<Device::cuda>(s, d_x.data(), d_squares.data(), cuda);
  kernels::qk_norm_forward<Device::cuda>(kernels::QkNormArgs<T>{s, 1e-5f, d_x.data(), d_q.data(), d_k.data(),
                                                                d_y.data(), d_rstd.data(), d_squares.data()},
                                         cuda);
  kernels::QkNormGradArgs<T> there{s,           d_x.data(),  d_q.data(), d_k.data(),  d_rstd.data(),
                                   d_dy.data(), d_dx.data(), false,      d_dq.data(), d_dk.data()};
  kernels::qk_norm_products<Device::cuda>(there, d_products.data(), cuda);
  there.products = d_products.data();
  kernels::qk_norm_backward<Device::cuda>(there, device, cuda);
  expect_success(cudaDeviceSynchronize());
  const auto terms = static_cast<double>(n);
  expect_near(d_squares.get(), squares, "squares", terms, 64);
  expect_near(d_y.get(), y, "y", terms, 64);
  expect_near(d_products.get(), products, "products", terms, 64);
  expect_near(d_dx.get(), dx, "dx", terms, 64);
  expect_near(d_dq.get(), dq, "dq", terms, 64);
}

TEST_F(EmulatedQkNorm, OfHeadsThatRanksShareEqualsTheCpus) {
  for (const QkNormShape& s :
       {QkNormShape{{1, 35, 3, 2, 16}, false, 2}, QkNormShape{{2, 5, 1, 1, 3}, false, 4}}) {
    expect_parts<float>(s);
    expect_parts<bf16>(s);
  }
}

// The floor of the contract; what is read again comes from the cache: x in forward, x and dy of q and k in
// backward.
TEST_F(EmulatedQkNorm, MovesItsFloor) {
  constexpr int64_t kRows = 64, kHeads = 4, kKvHeads = 2, kDim = 128, kWidth = (kHeads + 2 * kKvHeads) * kDim;
  constexpr int64_t kBytes = 2 * kRows * kWidth, kV = 2 * kRows * kKvHeads * kDim, kQk = kBytes - kV;
  constexpr int64_t kGroups = kRows * (kHeads + kKvHeads), kBlocks = kRows / 32;
  const DeviceArray<bf16> x(values<bf16>("x", kRows * kWidth)), dy(values<bf16>("dy", kRows * kWidth));
  const DeviceArray<bf16> y(kRows * kWidth), dx(kRows * kWidth);
  const DeviceArray<float> q(values<float>("q", kDim)), k(values<float>("k", kDim));
  const DeviceArray<float> dq{std::vector<float>(kDim)}, dk{std::vector<float>(kDim)}, rstd(kGroups);
  const QkNormShape shape{{1, kRows, kHeads, kKvHeads, kDim}, true};
  Stream stream(Device::cuda);
  Arena workspace("workspace", 1 << 20, Device::cuda);
  kernels::qk_norm_forward<Device::cuda>(
      kernels::QkNormArgs<bf16>{shape, 1e-5f, x.data(), q.data(), k.data(), y.data(), rstd.data()}, stream);
  kernels::qk_norm_backward<Device::cuda>(
      kernels::QkNormGradArgs<bf16>{shape, x.data(), q.data(), k.data(), rstd.data(), dy.data(), dx.data(),
                                    false, dq.data(), dk.data()},
      workspace, stream);
  expect_success(cudaDeviceSynchronize());
  const KernelCounts forward = counts("qk_norm_forward_kernel<kernels::LaneTeam<256, 16>, bf16, 8>");
  EXPECT_EQ(forward.launches, 1);
  EXPECT_EQ(forward.loaded_bytes, kBytes + kQk + 4 * kQk / 2);  // again, and its weight
  EXPECT_EQ(forward.stored_bytes, kBytes + 4 * kGroups);
  const KernelCounts backward = counts("qk_norm_backward_kernel<kernels::LaneTeam<256, 16>, bf16, 8>");
  EXPECT_EQ(backward.launches, 1);
  const int64_t rstd_bytes = 4 * 16 * kGroups;  // by each lane of a team
  EXPECT_EQ(backward.loaded_bytes, 4 * kQk + kV + 2 * 4 * kQk / 2 + rstd_bytes);
  EXPECT_EQ(backward.stored_bytes, kBytes + kBlocks * 2 * kDim * 4);
}

}  // namespace
}  // namespace ziggurat::emulation
