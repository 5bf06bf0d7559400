#include <algorithm>
#include <cmath>

#include <ziggurat/kernels/adafactor.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr double kLeastSquare = 1e-30;  // so that a gradient of zeros divides by something
constexpr int64_t kRowElements = 16384, kColBlock = 256;

int64_t rows_per_block(int64_t cols) { return std::max<int64_t>(1, kRowElements / cols); }

// A sum over rows of what each gives, added up in their order.
template <class OfRow>
double sum_of_rows(int64_t rows, int64_t cols, Arena& workspace, const OfRow& of_row) {
  const ArenaScope scope(workspace);
  auto* const sums = workspace.take<double>(rows);
  parallel_for_blocks(rows, rows_per_block(cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sums[i] = of_row(i);
  });
  double total = 0;
  for (int64_t i = 0; i < rows; ++i) total += sums[i];
  return total;
}

template <class T>
void update_factors(const AdafactorArgs<T>& g, double scale, double beta) {
  const auto square = [&](int64_t i, int64_t j) {
    const double grad = scale * static_cast<double>(g.gradient[i * g.cols + j]);
    return grad * grad + kLeastSquare;
  };
  parallel_for_blocks(g.rows, rows_per_block(g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < g.cols; ++j) sum += square(i, j);
      g.row_squares[i] =
          T(beta * static_cast<double>(g.row_squares[i]) + (1 - beta) * sum / static_cast<double>(g.cols));
    }
  });
  parallel_for_blocks(g.cols, kColBlock, [&](int64_t begin, int64_t end) {
    double sums[kColBlock] = {};
    for (int64_t i = 0; i < g.rows; ++i) {
      for (int64_t j = begin; j < end; ++j) sums[j - begin] += square(i, j);
    }
    for (int64_t j = begin; j < end; ++j) {
      g.col_squares[j] = T(beta * static_cast<double>(g.col_squares[j]) +
                           (1 - beta) * sums[j - begin] / static_cast<double>(g.rows));
    }
  });
}

}  // namespace

template <Device D, class T>
void adafactor_update(const AdafactorArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "adafactor_update");
  const ArenaScope scope(workspace);
  if (DryRun::on()) {
    workspace.take<double>(g.rows);
    return;
  }
  if (!std::isfinite(*g.grad_scale)) return;
  const double scale = *g.grad_scale;
  const double beta = 1 - std::pow(static_cast<double>(g.step), -g.decay_exponent);
  const bool factored = g.squares == nullptr;
  const auto at = [&](int64_t i, int64_t j) { return i * g.cols + j; };
  if (factored) {
    update_factors(g, scale, beta);
  } else {
    parallel_for_blocks(g.rows, rows_per_block(g.cols), [&](int64_t begin, int64_t end) {
      for (int64_t e = begin * g.cols; e < end * g.cols; ++e) {
        const double grad = scale * static_cast<double>(g.gradient[e]);
        g.squares[e] =
            T(beta * static_cast<double>(g.squares[e]) + (1 - beta) * (grad * grad + kLeastSquare));
      }
    });
  }
  double mean_row = 1;
  if (factored) {
    double sum = 0;
    for (int64_t i = 0; i < g.rows; ++i) sum += static_cast<double>(g.row_squares[i]);
    mean_row = sum / static_cast<double>(g.rows);
  }
  const auto update = [&](int64_t i, int64_t j) {
    const double v =
        factored ? static_cast<double>(g.row_squares[i]) / mean_row * static_cast<double>(g.col_squares[j])
                 : static_cast<double>(g.squares[at(i, j)]);
    return scale * static_cast<double>(g.gradient[at(i, j)]) / std::sqrt(v);
  };
  const auto elements = static_cast<double>(g.rows * g.cols);
  const double rms_u = std::sqrt(sum_of_rows(g.rows, g.cols, workspace,
                                             [&](int64_t i) {
                                               double sum = 0;
                                               for (int64_t j = 0; j < g.cols; ++j)
                                                 sum += update(i, j) * update(i, j);
                                               return sum;
                                             }) /
                                 elements);
  const double rms_p = std::sqrt(sum_of_rows(g.rows, g.cols, workspace,
                                             [&](int64_t i) {
                                               double sum = 0;
                                               for (int64_t j = 0; j < g.cols; ++j) {
                                                 const auto p = static_cast<double>(g.master[at(i, j)]);
                                                 sum += p * p;
                                               }
                                               return sum;
                                             }) /
                                 elements);
  const double keep = 1 - g.lr * g.weight_decay;
  const double length = g.lr * std::max(g.least_scale, rms_p) / std::max(1.0, rms_u / g.clip);
  parallel_for_blocks(g.rows, rows_per_block(g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < g.cols; ++j) {
        T& p = g.master[at(i, j)];
        p = T(keep * static_cast<double>(p) - length * update(i, j));
        if (g.compute != nullptr) g.compute[at(i, j)] = bf16(static_cast<float>(p));
      }
    }
  });
}

template void adafactor_update<Device::cpu>(const AdafactorArgs<float>&, Arena&, Stream&);
template void adafactor_update<Device::cpu>(const AdafactorArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
