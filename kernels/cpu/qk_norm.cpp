#include <algorithm>
#include <array>

#include <kernels/cpu/rms_row.h>

#include <ziggurat/kernels/qk_norm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 32;  // rows of a block, also of a partial parameter gradient

// Equal groups of neighbouring columns, normalised one by one with the same weight.
template <class A>
struct Groups {
  int64_t count, cols;
  int64_t column;  // the first one's first, in a row of qkv
  int64_t index;   // the first one's, of a row's groups
  const A* weight;
  A* dweight;  // the sum over all rows, or null

  A* partial = nullptr;  // [blocks, cols] sums of each block of rows
};

template <class A>
using QAndK = std::array<Groups<A>, 2>;

template <class A>
QAndK<A> groups_of(const QkNormShape& s, const A* q_weight, const A* k_weight, A* dq_weight = nullptr,
                   A* dk_weight = nullptr) {
  return {{{s.q_groups(), s.q_cols(), 0, 0, q_weight, dq_weight},
           {s.k_groups(), s.k_cols(), s.qkv.k_column(), s.q_groups(), k_weight, dk_weight}}};
}

// f(row, place of a group among all rows', its first column in x, its weight, its columns) of every group.
template <class A, class F>
void for_each_group(const QkNormShape& s, const A* q_weight, const A* k_weight, const F& f) {
  const QAndK<A> q_and_k = groups_of(s, q_weight, k_weight);
  parallel_for_blocks(s.qkv.rows(), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (const Groups<A>& groups : q_and_k) {
        for (int64_t i = 0; i < groups.count; ++i) {
          f(row * s.groups() + groups.index + i, row * s.qkv.width() + groups.column + i * groups.cols,
            groups.weight, groups.cols);
        }
      }
    }
  });
}

}  // namespace

template <Device D, class T>
void qk_norm_squares(const QkNormShape& shape, const T* x, Accum<T>* squares, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_squares");
  const Accum<T>* const none = nullptr;
  for_each_group(shape, none, none, [=](int64_t group, int64_t at, const Accum<T>*, int64_t cols) {
    squares[group] = square_of_row(x + at, cols);
  });
}

template <Device D, class T>
void qk_norm_products(const QkNormGradArgs<T>& g, Accum<T>* products, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_products");
  for_each_group(g.shape, g.q_weight, g.k_weight,
                 [&](int64_t group, int64_t at, const Accum<T>* weight, int64_t cols) {
                   products[group] = product_of_row(g.x + at, weight, g.rstd[group], g.dy + at, cols);
                 });
}

template <Device D, class T>
void qk_norm_forward(const QkNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_forward");
  using A = Accum<T>;
  const AttentionShape& s = g.shape.qkv;
  const QAndK<A> q_and_k = groups_of(g.shape, g.q_weight, g.k_weight);
  parallel_for_blocks(s.rows(), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = g.x + row * s.width();
      T* y = g.y + row * s.width();
      for (const Groups<A>& groups : q_and_k) {
        const int64_t first = row * g.shape.groups() + groups.index;
        for (int64_t i = 0; i < groups.count; ++i) {
          const int64_t column = groups.column + i * groups.cols;
          const A square =
              g.squares == nullptr ? square_of_row(x + column, groups.cols) : g.squares[first + i];
          g.rstd[first + i] = rms_row(x + column, groups.weight, g.eps, groups.cols, y + column, square,
                                      groups.cols * g.shape.parts);
        }
      }
      std::copy(x + s.v_column(), x + s.width(), y + s.v_column());
    }
  });
}

template <Device D, class T>
void qk_norm_backward(const QkNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_backward");
  using A = Accum<T>;
  const AttentionShape& s = g.shape.qkv;
  const int64_t blocks = (s.rows() + kRows - 1) / kRows;
  const ArenaScope scope(workspace);
  QAndK<A> q_and_k = groups_of(g.shape, g.q_weight, g.k_weight, g.dq_weight, g.dk_weight);
  for (Groups<A>& groups : q_and_k) {
    if (groups.dweight != nullptr) groups.partial = workspace.take<A>(blocks * groups.cols);
  }

  parallel_for_blocks(s.rows(), kRows, [&](int64_t begin, int64_t end) {
    for (const Groups<A>& groups : q_and_k) {
      const int64_t cols = groups.cols;
      A* const dweight = groups.partial == nullptr ? nullptr : groups.partial + begin / kRows * cols;
      if (dweight != nullptr) std::fill(dweight, dweight + cols, A(0));
      for (int64_t row = begin; row < end; ++row) {
        const int64_t first = row * g.shape.groups() + groups.index;
        for (int64_t i = 0; i < groups.count; ++i) {
          const int64_t at = row * s.width() + groups.column + i * cols;
          const A rstd = g.rstd[first + i];
          if (dweight != nullptr) rms_row_weight_gradient(g.x + at, rstd, g.dy + at, cols, dweight);
          if (g.dx == nullptr) continue;
          const A product = g.products == nullptr
                                ? product_of_row(g.x + at, groups.weight, rstd, g.dy + at, cols)
                                : g.products[first + i];
          rms_row_gradient(g.x + at, groups.weight, rstd, g.dy + at, cols, g.accumulate_dx, g.dx + at,
                           product, cols * g.shape.parts);
        }
      }
    }
    if (g.dx == nullptr) return;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * s.width() + s.v_column();
      const T* dy = g.dy + at;
      T* dx = g.dx + at;
      for (int64_t j = 0; j < s.width() - s.v_column(); ++j) {
        dx[j] = g.accumulate_dx ? T(A(dx[j]) + A(dy[j])) : dy[j];
      }
    }
  });
  for (const Groups<A>& groups : q_and_k) {
    if (groups.partial != nullptr) add_partial_sums(groups.partial, blocks, groups.cols, groups.dweight);
  }
}

template void qk_norm_squares<Device::cpu>(const QkNormShape&, const float*, float*, Stream&);
template void qk_norm_squares<Device::cpu>(const QkNormShape&, const bf16*, float*, Stream&);
template void qk_norm_squares<Device::cpu>(const QkNormShape&, const double*, double*, Stream&);
template void qk_norm_products<Device::cpu>(const QkNormGradArgs<float>&, float*, Stream&);
template void qk_norm_products<Device::cpu>(const QkNormGradArgs<bf16>&, float*, Stream&);
template void qk_norm_products<Device::cpu>(const QkNormGradArgs<double>&, double*, Stream&);
template void qk_norm_forward<Device::cpu>(const QkNormArgs<float>&, Stream&);
template void qk_norm_forward<Device::cpu>(const QkNormArgs<bf16>&, Stream&);
template void qk_norm_forward<Device::cpu>(const QkNormArgs<double>&, Stream&);
template void qk_norm_backward<Device::cpu>(const QkNormGradArgs<float>&, Arena&, Stream&);
template void qk_norm_backward<Device::cpu>(const QkNormGradArgs<bf16>&, Arena&, Stream&);
template void qk_norm_backward<Device::cpu>(const QkNormGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
