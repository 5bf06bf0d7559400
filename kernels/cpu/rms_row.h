// Root-mean-square normalisation of one row (kernels/rms_norm.h), for the kernels that differ in what a row
// is. With xhat = x rstd and v = dy weight: y = xhat weight, dx = rstd (v - xhat mean_j(v xhat)), dweight +=
// dy xhat.
#pragma once

#include <cmath>

#include <kernels/cpu/row_sums.h>

namespace ziggurat::kernels {

template <class T, class A = Accum<T>>
inline A square_of_row(const T* x, int64_t cols) {
  return sum_of<A>(cols, [=](int64_t j) { return A(x[j]) * A(x[j]); });
}

// Of columns of a row of `all`, whose square is given. Returns rstd = 1 / sqrt(mean(x^2) + eps).
template <class T, class A = Accum<T>>
inline A rms_row(const T* x, const A* weight, A eps, int64_t cols, T* y, A square, int64_t all) {
  const A rstd = A(1) / std::sqrt(square / A(all) + eps);
  for (int64_t j = 0; j < cols; ++j) y[j] = T(A(x[j]) * rstd * weight[j]);
  return rstd;
}

template <class T, class A = Accum<T>>
inline A rms_row(const T* x, const A* weight, A eps, int64_t cols, T* y) {
  return rms_row(x, weight, eps, cols, y, square_of_row(x, cols), cols);
}

template <class T, class A = Accum<T>>
inline void rms_row_weight_gradient(const T* x, A rstd, const T* dy, int64_t cols, A* dweight) {
  for (int64_t j = 0; j < cols; ++j) dweight[j] += A(dy[j]) * (A(x[j]) * rstd);
}

// The sum of v xhat.
template <class T, class A = Accum<T>>
inline A product_of_row(const T* x, const A* weight, A rstd, const T* dy, int64_t cols) {
  return sum_of<A>(cols, [=](int64_t j) { return A(dy[j]) * weight[j] * (A(x[j]) * rstd); });
}

// Of columns of a row of `all`, whose product is given.
template <class T, class A = Accum<T>>
inline void rms_row_gradient(const T* x, const A* weight, A rstd, const T* dy, int64_t cols, bool accumulate,
                             T* dx, A product, int64_t all) {
  const A vx_mean = product / A(all);
  for (int64_t j = 0; j < cols; ++j) {
    const A d = rstd * (A(dy[j]) * weight[j] - A(x[j]) * rstd * vx_mean);
    dx[j] = T(accumulate ? A(dx[j]) + d : d);
  }
}

template <class T, class A = Accum<T>>
inline void rms_row_gradient(const T* x, const A* weight, A rstd, const T* dy, int64_t cols, bool accumulate,
                             T* dx) {
  rms_row_gradient(x, weight, rstd, dy, cols, accumulate, dx, product_of_row(x, weight, rstd, dy, cols),
                   cols);
}

}  // namespace ziggurat::kernels
