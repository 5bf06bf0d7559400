#include <algorithm>

#include <ziggurat/kernels/embedding.h>
#include <ziggurat/runtime/dry_run.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kRows = 32;
constexpr int64_t kCols = 64;  // columns of a block: four cache lines of an f32 gradient row

// Of row i, by the arguments of forward or backward.
template <class Args>
int64_t position(const Args& g, int64_t i) {
  return g.positions == nullptr ? i % g.sequence_length : g.positions[i];
}
}  // namespace

template <Device D, class T>
void embedding_forward(const EmbeddingArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_forward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* y = g.y + i * g.cols;
      if (g.tokens[i] < 0) {
        std::fill_n(y, g.cols, T(0.0F));
        continue;
      }
      const T* token = g.table + g.tokens[i] * g.cols;
      if (g.position_table == nullptr) {
        for (int64_t j = 0; j < g.cols; ++j) y[j] = token[j];
      } else {
        const T* place = g.position_table + position(g, i) * g.cols;
        for (int64_t j = 0; j < g.cols; ++j) y[j] = T(A(token[j]) + A(place[j]));
      }
    }
  });
}

template <Device D, class T>
void embedding_backward(const EmbeddingGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_backward");
  using A = Accum<T>;
  parallel_for_blocks(g.cols, kCols, [=](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < g.rows; ++i) {
      const T* dy = g.dy + i * g.cols;
      if (g.dtable != nullptr && g.tokens[i] >= 0) {
        A* sum = g.dtable + g.tokens[i] * g.cols;
        for (int64_t j = begin; j < end; ++j) sum[j] += A(dy[j]);
      }
      if (g.dposition_table != nullptr) {
        A* sum = g.dposition_table + position(g, i) * g.cols;
        for (int64_t j = begin; j < end; ++j) sum[j] += A(dy[j]);
      }
    }
  });
}

template <Device D>
void rows_of_part(const RowsOfPartArgs& g, Stream& stream) {
  const Span span(stream.profile(), "rows_of_part");
  if (DryRun::on()) return;
  for (int64_t i = 0; i < g.n; ++i) {
    const int64_t row = g.ids[i] - g.first;
    const bool inside = g.ids[i] != g.none && row >= 0 && row < g.rows;
    g.row_of_part[i] = inside ? static_cast<int32_t>(row) : -1;
  }
}

template <Device D>
void count_positions(int64_t first, int64_t n, int64_t length, int32_t* positions, Stream& stream) {
  const Span span(stream.profile(), "count_positions");
  if (DryRun::on()) return;
  for (int64_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>((first + i) % length);
}

template void count_positions<Device::cpu>(int64_t, int64_t, int64_t, int32_t*, Stream&);
template void rows_of_part<Device::cpu>(const RowsOfPartArgs&, Stream&);
template void embedding_forward<Device::cpu>(const EmbeddingArgs<float>&, Stream&);
template void embedding_forward<Device::cpu>(const EmbeddingArgs<bf16>&, Stream&);
template void embedding_forward<Device::cpu>(const EmbeddingArgs<double>&, Stream&);
template void embedding_backward<Device::cpu>(const EmbeddingGradArgs<float>&, Stream&);
template void embedding_backward<Device::cpu>(const EmbeddingGradArgs<bf16>&, Stream&);
template void embedding_backward<Device::cpu>(const EmbeddingGradArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
