// A first program for a GPU, and what shows that everything links: products of the matrix library, and those
// of experts, against sums in f64. Exit code 1: one of them is wrong. Without a GPU it ends with the
// runtime's own words. With --descriptions it asks for no GPU: whether cuDNN, where the build has it, takes
// our descriptions of attention.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include <kernels/cuda/lib/attention_plan.h>

#include "tests/support/random_values.h"
#include <ziggurat/core/error.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/linear.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat {
namespace {

using kernels::Activation;

struct Bench {
  Stream stream{Device::cuda};
  Arena memory{"test data", int64_t{256} << 20, Device::cuda},
      workspace{"workspace", int64_t{128} << 20, Device::cuda};

  template <class T>
  T* put(const std::vector<T>& values) {
    const auto n = static_cast<int64_t>(values.size());
    T* const there = memory.take_on_device<T>(n);
    backend(Device::cuda).copy(values.data(), there, n * static_cast<int64_t>(sizeof(T)), stream);
    return there;
  }
  template <class T>
  std::vector<T> get(const T* there, int64_t n) {
    std::vector<T> values(static_cast<size_t>(n));
    backend(Device::cuda).copy(there, values.data(), n * static_cast<int64_t>(sizeof(T)), stream);
    backend(Device::cuda).wait(stream);
    return values;
  }
};

double at(const auto& values, int64_t i) { return static_cast<double>(values[static_cast<size_t>(i)]); }

double activate(Activation activation, double z) {
  if (activation == Activation::gelu_erf) return 0.5 * z * (1 + std::erf(z / std::sqrt(2.0)));
  if (activation == Activation::none) return z;
  return 0.5 * z * (1 + std::tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)));
}

// y = activation(x w^T + bias) and dw = dy^T x: whether both are near sums in f64.
template <class T>
bool check_linear(const char* dtype, int64_t rows, int64_t in, int64_t out, Activation activation) {
  Bench bench;
  const auto x = test::random_values<T>(rows * in, 1), w = test::random_values<T>(out * in, 2),
             dy = test::random_values<T>(rows * out, 3);
  const auto bias = test::random_values<float>(out, 4);
  T *const d_x = bench.put(x), *const d_w = bench.put(w), *const d_dy = bench.put(dy);
  T *const z = bench.memory.take_on_device<T>(rows * out), *const y =
                                                               bench.memory.take_on_device<T>(rows * out);
  float* const dw = bench.memory.take_on_device<float>(out * in);
  const kernels::LinearArgs<T> forward{rows, in, out, d_x, d_w, 0, bench.put(bias), activation, z, y};
  kernels::linear_forward<Device::cuda>(forward, bench.workspace, bench.stream);
  kernels::LinearGradArgs<T> backward{forward, d_dy};
  backward.forward.activation = Activation::none;
  backward.dweight = dw;
  kernels::linear_backward<Device::cuda>(backward, bench.workspace, bench.stream);
  const auto got_y = bench.get(activation == Activation::none ? z : y, rows * out);
  const auto got_dw = bench.get(dw, out * in);

  // Roundings of z and y, and of sums in f32, which are a random walk.
  const double unit = sizeof(T) == 2 ? 0x1p-8 : 0x1p-23;
  double y_error = 0, dw_error = 0;  // in units of what they may be
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < out; ++j) {
      double sum = at(bias, j);
      for (int64_t p = 0; p < in; ++p) sum += at(x, i * in + p) * at(w, j * in + p);
      const double allowed = 4 * unit * (1 + std::abs(sum)) + 16 * 0x1p-24 * static_cast<double>(in);
      y_error = std::max(y_error, std::abs(at(got_y, i * out + j) - activate(activation, sum)) / allowed);
    }
  }
  for (int64_t j = 0; j < out; ++j) {
    for (int64_t p = 0; p < in; ++p) {
      double sum = 0;
      for (int64_t i = 0; i < rows; ++i) sum += at(dy, i * out + j) * at(x, i * in + p);
      const double allowed = 16 * 0x1p-24 * (static_cast<double>(rows) + std::abs(sum));
      dw_error = std::max(dw_error, std::abs(at(got_dw, j * in + p) - sum) / allowed);
    }
  }
  const bool right = y_error <= 1 && dw_error <= 1;  // false for NaNs
  std::printf("%s %5s, %lld x %lld -> %lld, activation %d: errors %.2g and %.2g of what is allowed\n",
              right ? "right" : "WRONG", dtype, static_cast<long long>(rows), static_cast<long long>(in),
              static_cast<long long>(out), static_cast<int>(activation), y_error, dw_error);
  return right;
}

// One sum of `terms` products of normal operands, stored in T and near `exact`: the error in units of what it
// may be.
template <class T>
double error_of(double got, double exact, int64_t terms) {
  const double unit = sizeof(T) == 2 ? 0x1p-8 : 0x1p-23;
  const double allowed =
      2 * unit * (0.01 + std::abs(exact)) + 16 * 0x1p-24 * (1 + static_cast<double>(terms));
  const double error = std::abs(got - exact) / allowed;
  return std::isnan(error) ? 1e30 : error;
}

// z = x w^T + bias, dx = dz w and dw = dz^T x of experts with so many rows each, the two gradients once
// written and once added to: whether all are near sums in f64. What no expert's rows reach holds NaNs before.
template <class T>
bool check_grouped(const char* dtype, const std::vector<int32_t>& rows_of, int64_t in, int64_t out,
                   bool bias) {
  Bench bench;
  std::vector<int32_t> offsets = {0};
  for (const int32_t n : rows_of) offsets.push_back(offsets.back() + n);
  const auto experts = static_cast<int64_t>(rows_of.size());
  const int64_t real = offsets.back(), rows = real + 5;  // the last ones are nobody's
  auto x = test::random_values<T>(rows * in, 1), dz = test::random_values<T>(rows * out, 2);
  std::fill(x.begin() + real * in, x.end(), T(std::nanf("")));
  std::fill(dz.begin() + real * out, dz.end(), T(std::nanf("")));
  const auto w = test::random_values<T>(experts * out * in, 3);
  const auto b = test::random_values<float>(experts * out, 4);
  const auto dx = test::random_values<T>(rows * in, 5);
  const auto dw = test::random_values<float>(experts * out * in, 6);

  kernels::GroupedLinearArgs<T> forward;
  forward.groups = {bench.put(offsets), experts};
  forward.rows = rows, forward.in = in, forward.out = out;
  forward.x = bench.put(x), forward.weight = bench.put(w), forward.bias = bias ? bench.put(b) : nullptr;
  forward.z = bench.put(std::vector<T>(static_cast<size_t>(rows * out), T(std::nanf(""))));
  kernels::grouped_linear_forward<Device::cuda>(forward, bench.workspace, bench.stream);
  const auto z = bench.get(forward.z, rows * out);
  const T* const d_dz = bench.put(dz);

  double z_error = 0, dx_error = 0, dw_error = 0;
  for (const bool add : {false, true}) {
    kernels::GroupedLinearGradArgs<T> backward{forward, d_dz, bench.put(dx), add, bench.put(dw)};
    backward.overwrite_dweight = !add;
    kernels::grouped_linear_backward<Device::cuda>(backward, bench.workspace, bench.stream);
    const auto got_dx = bench.get(backward.dx, rows * in);
    const auto got_dw = bench.get(backward.dweight, experts * out * in);
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t begin = offsets[static_cast<size_t>(e)], end = offsets[static_cast<size_t>(e) + 1];
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < out && !add; ++j) {
          double sum = bias ? at(b, e * out + j) : 0;
          for (int64_t p = 0; p < in; ++p) sum += at(x, i * in + p) * at(w, (e * out + j) * in + p);
          z_error = std::max(z_error, error_of<T>(at(z, i * out + j), sum, in));
        }
        for (int64_t p = 0; p < in; ++p) {
          double sum = add ? at(dx, i * in + p) : 0;
          for (int64_t j = 0; j < out; ++j) sum += at(dz, i * out + j) * at(w, (e * out + j) * in + p);
          dx_error = std::max(dx_error, error_of<T>(at(got_dx, i * in + p), sum, out));
        }
      }
      for (int64_t j = 0; j < out; ++j) {
        for (int64_t p = 0; p < in; ++p) {
          double sum = add ? at(dw, (e * out + j) * in + p) : 0;
          for (int64_t i = begin; i < end; ++i) sum += at(dz, i * out + j) * at(x, i * in + p);
          dw_error =
              std::max(dw_error, error_of<float>(at(got_dw, (e * out + j) * in + p), sum, end - begin));
        }
      }
    }
  }
  const bool right = z_error <= 1 && dx_error <= 1 && dw_error <= 1;
  std::printf(
      "%s %5s, %lld experts of up to %d rows, %lld -> %lld, bias %d: errors %.2g, %.2g and %.2g of what is "
      "allowed\n",
      right ? "right" : "WRONG", dtype, static_cast<long long>(experts),
      *std::max_element(rows_of.begin(), rows_of.end()), static_cast<long long>(in),
      static_cast<long long>(out), bias, z_error, dx_error, dw_error);
  return right;
}

bool check_all_grouped() {
  bool right = true;
  const std::vector<int32_t> many(40, 3);  // more experts than lanes of a warp
  for (const bool bias : {false, true}) {
    for (const auto& rows : {std::vector<int32_t>{300, 0, 1, 129, 0}, {0, 64, 128}, {0, 0}, many}) {
      // Tiles that are full and not, widths that suit CUTLASS's kernels, and that do not.
      for (const auto& [in, out] : {std::array<int64_t, 2>{128, 256}, {72, 136}, {65, 33}}) {
        right = check_grouped<float>("f32", rows, in, out, bias) && right;
        right = check_grouped<bf16>("bf16", rows, in, out, bias) && right;
      }
    }
  }
  return right;
}

bool check_all() {
  bool right = check_all_grouped();
  for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
    for (const auto& [rows, in, out] : {std::array<int64_t, 3>{256, 192, 320}, {37, 65, 131}, {1, 8, 8}}) {
      right = check_linear<float>("f32", rows, in, out, activation) && right;
      right = check_linear<bf16>("bf16", rows, in, out, activation) && right;
    }
  }
  return right;
}

// Every form that we ask cuDNN for; and one that it must refuse, as otherwise nothing was asked.
bool check_descriptions() {
  using kernels::AttentionPass;
  using kernels::AttentionSpec;
  int asked = 0, refused = 0;
  for (const int capability : {80, 90, 100}) {
    for (const AttentionPass pass : {AttentionPass::forward, AttentionPass::backward}) {
      for (const int64_t window : {0, 1, 128, 1024, 4096}) {
        for (const int64_t kv_heads : {1, 2, 8}) {
          for (const int64_t head_dim : {8, 64, 128}) {
            const AttentionSpec spec{pass, 2, 1024, 8, kv_heads, head_dim, window, 0.125f};
            const std::string fault = kernels::fault_of_description(spec, capability);
            ++asked;
            if (fault.empty()) continue;
            ++refused;
            std::printf("WRONG sm_%d, %s, window %lld, %lld key heads of %lld: %s\n", capability,
                        pass == AttentionPass::forward ? "forward" : "backward",
                        static_cast<long long>(window), static_cast<long long>(kv_heads),
                        static_cast<long long>(head_dim), fault.c_str());
          }
        }
      }
    }
  }
  const AttentionSpec wrong{AttentionPass::forward, 2, 1024, 8, 3, 64, 0, 0.125f};  // 8 heads of 3
  const bool library = kernels::most_attention_workspace(wrong) > 0,
             seen = !kernels::fault_of_description(wrong, 90).empty();
  if (!library) return std::printf("no cuDNN in this build\n"), true;
  std::printf("%s cuDNN took %d of %d descriptions of attention, and %s a wrong one\n",
              refused == 0 && seen ? "right" : "WRONG", asked - refused, asked, seen ? "refused" : "took");
  return refused == 0 && seen;
}

}  // namespace
}  // namespace ziggurat

int main(int arguments, char** argument) {
  try {
    if (arguments == 2 && std::string_view(argument[1]) == "--descriptions") {
      return ziggurat::check_descriptions() ? 0 : 1;
    }
    return ziggurat::check_all() ? 0 : 1;
  } catch (const ziggurat::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return ziggurat::exit_code(error.kind());
  }
}
