// Root-mean-square normalisation of one row (kernels/rms_norm.h) by a team of threads, for the kernels that
// differ in what a row is. Every thread has the same columns in every row. Where N > 1, 16 bytes of x, y and
// weight can be loaded.
#pragma once

#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/team.h>

namespace ziggurat::kernels {

// Every thread gets it.
template <int N, class Team, class T>
__device__ __forceinline__ float square_of_row(const Team& team, const T* x, int64_t cols) {
  float square = 0;
  for (int64_t j = team.rank() * N; j < cols; j += Team::kSize * N) {
    const Values<T, N> values = load<N>(x + j);
#pragma unroll
    for (int i = 0; i < N; ++i) square += values.v[i] * values.v[i];
  }
  return team.sum(square);
}

// Of columns of a row of `all`, whose square is given: y = x rstd weight; every thread gets rstd = 1 /
// sqrt(mean(x^2) + eps).
template <int N, class Team, class T>
__device__ __forceinline__ float rms_row(const Team& team, const T* x, const float* weight, float eps,
                                         int64_t cols, T* y, float square, int64_t all) {
  const float rstd = 1.0f / sqrtf(square / static_cast<float>(all) + eps);
  for (int64_t j = team.rank() * N; j < cols; j += Team::kSize * N) {
    Values<T, N> values = load<N>(x + j);
    float w[N];
    load_floats(weight + j, w);
#pragma unroll
    for (int i = 0; i < N; ++i) values.v[i] = values.v[i] * rstd * w[i];
    store(y + j, values);
  }
  return rstd;
}

template <int N, class Team, class T>
__device__ __forceinline__ float rms_row(const Team& team, const T* x, const float* weight, float eps,
                                         int64_t cols, T* y) {
  return rms_row<N>(team, x, weight, eps, cols, y, square_of_row<N>(team, x, cols), cols);
}

// With xhat = x rstd and v = dy weight: dx = rstd (v - xhat mean_j(v xhat)), dweight += dy xhat. Both may be
// null; dweight is the team's own. Of columns of a row of `all` the sum of v xhat over them is given.
template <int N, class Team, class T>
__device__ __forceinline__ void rms_row_gradient(const Team& team, const T* x, const float* weight,
                                                 float rstd, const T* dy, int64_t cols, bool accumulate,
                                                 T* dx, float* dweight, const float* product = nullptr,
                                                 int64_t all = 0) {
  float vx = 0;
  for (int64_t j = team.rank() * N; j < cols; j += Team::kSize * N) {
    const Values<T, N> x_values = load<N>(x + j), dy_values = load<N>(dy + j);
    float w[N];
    load_floats(weight + j, w);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float xhat = x_values.v[i] * rstd;
      vx += dy_values.v[i] * w[i] * xhat;
      if (dweight != nullptr) dweight[j + i] += dy_values.v[i] * xhat;
    }
  }
  if (dx == nullptr) return;
  const float vx_mean =
      product == nullptr ? team.sum(vx) / static_cast<float>(cols) : *product / static_cast<float>(all);
  for (int64_t j = team.rank() * N; j < cols; j += Team::kSize * N) {
    const Values<T, N> x_values = load<N>(x + j), dy_values = load<N>(dy + j);
    float w[N];
    load_floats(weight + j, w);
    Values<T, N> d;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      d.v[i] = rstd * (dy_values.v[i] * w[i] - x_values.v[i] * rstd * vx_mean);
    }
    write(dx + j, accumulate, d);
  }
}

}  // namespace ziggurat::kernels
