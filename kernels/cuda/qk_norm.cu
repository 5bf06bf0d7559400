// A row of qkv falls into pieces: its heads, each normalised (or, of v, copied) by a few lanes of a warp; or
// where q and k are normalised whole, the three of them, each by a block. 16 bytes a thread at a time, or one
// value where sizes or addresses are no multiple of that; the second time a piece is read it comes from the
// cache. Backward: a block takes 32 rows; each of its teams keeps the gradients of both weights in shared
// memory, which are added up in order. Floor: n = rows width sizeof(T) bytes; forward 2 n and 4 FLOPs a value
// of q and k, backward 3 n less v's part of one (1 n more where dx is added to) and 9 FLOPs. Memory's.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/partial_sums.h>
#include <kernels/cuda/device/rms_row.h>

#include <ziggurat/kernels/qk_norm.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

enum class Part { q, k, v };

struct Piece {
  Part part;
  int64_t column, cols;  // in a row of qkv
  int64_t group;         // of q and k: which of the row's
};

// How rows are cut into pieces, in the order of their columns.
struct Cut {
  explicit Cut(const QkNormShape& s)
      : q(static_cast<unsigned>(s.q_groups())),
        k(static_cast<unsigned>(s.k_groups())),
        v(s.per_head ? k : 1),
        q_cols(s.q_cols()),
        k_cols(s.k_cols()) {}
  __host__ __device__ unsigned pieces() const { return q + k + v; }
  __device__ Piece piece(unsigned i) const {
    if (i < q) return {Part::q, i * q_cols, q_cols, i};
    return {i < q + k ? Part::k : Part::v, q * q_cols + (i - q) * k_cols, k_cols, i};
  }
  unsigned q, k, v;
  int64_t q_cols, k_cols;  // of a piece
};

template <int N, class Team, class T>
__device__ __forceinline__ void copy_piece(const Team& team, const T* x, int64_t cols, bool accumulate,
                                           T* y) {
#pragma unroll 1  // unrolled, ptxas spills registers; it has one round
  for (int64_t j = team.rank() * N; j < cols; j += Team::kSize * N) write(y + j, accumulate, load<N>(x + j));
}

template <class Team, class T, int N>
__global__ void __launch_bounds__(kThreads) qk_norm_forward_kernel(QkNormArgs<T> g, Cut cut) {
  const Team team;
  const unsigned index = blockIdx.x * Team::kOfBlock + static_cast<unsigned>(team.number());
  const int64_t row = index / cut.pieces();
  if (row >= g.shape.qkv.rows()) return;
  const Piece piece = cut.piece(index % cut.pieces());
  const int64_t at = row * g.shape.qkv.width() + piece.column;
  if (piece.part == Part::v) {
    copy_piece<N>(team, g.x + at, piece.cols, false, g.y + at);
    return;
  }
  const int64_t group = row * g.shape.groups() + piece.group;
  const float square = g.squares == nullptr ? square_of_row<N>(team, g.x + at, piece.cols) : g.squares[group];
  const float rstd = rms_row<N>(team, g.x + at, piece.part == Part::q ? g.q_weight : g.k_weight, g.eps,
                                piece.cols, g.y + at, square, piece.cols * g.shape.parts);
  if (team.rank() == 0) g.rstd[group] = rstd;
}

// Of ranks that share the heads: a block a sum.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    qk_norm_squares_kernel(QkNormShape shape, Cut cut, const T* x, float* squares) {
  const BlockTeam<kThreads> team;
  const auto groups = static_cast<unsigned>(shape.groups());
  const Piece piece = cut.piece(blockIdx.x % groups);
  const T* const of_group = x + blockIdx.x / groups * shape.qkv.width() + piece.column;
  const float square = square_of_row<N>(team, of_group, piece.cols);
  if (team.rank() == 0) squares[blockIdx.x] = square;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    qk_norm_products_kernel(QkNormGradArgs<T> g, Cut cut, float* products) {
  const BlockTeam<kThreads> team;
  const auto groups = static_cast<unsigned>(g.shape.groups());
  const Piece piece = cut.piece(blockIdx.x % groups);
  const int64_t at = blockIdx.x / groups * g.shape.qkv.width() + piece.column;
  const float *const weight = piece.part == Part::q ? g.q_weight : g.k_weight, rstd = g.rstd[blockIdx.x];
  float product = 0;
  for (int64_t j = team.rank() * N; j < piece.cols; j += kThreads * N) {
    const Values<T, N> x = load<N>(g.x + at + j), dy = load<N>(g.dy + at + j);
    float w[N];
    load_floats(weight + j, w);
#pragma unroll
    for (int i = 0; i < N; ++i) product += dy.v[i] * w[i] * (x.v[i] * rstd);
  }
  product = team.sum(product);
  if (team.rank() == 0) products[blockIdx.x] = product;
}

constexpr int kBlocksOfBackward =
    2;  // of a processor at least: ptxas aims at more by itself, and spills registers
// partial_dq [blocks, q_cols], partial_dk [blocks, k_cols]: each block's part of the weights' gradients; or
// null
template <class Team, class T, int N>
__global__ void __launch_bounds__(kThreads, kBlocksOfBackward)
    qk_norm_backward_kernel(QkNormGradArgs<T> g, Cut cut, float* partial_dq, float* partial_dk) {
  const Team team;
  const auto thread = static_cast<int64_t>(threadIdx.x);
  const bool sums = partial_dq != nullptr || partial_dk != nullptr;
  const int64_t both = cut.q_cols + cut.k_cols;
  float* const all = dynamic_shared<float>();  // [teams, q_cols + k_cols]
  float* const mine = all + team.number() * both;
  if (sums) {
    for (int64_t j = thread; j < Team::kOfBlock * both; j += kThreads) all[j] = 0;
    __syncthreads();
  }
  const int64_t begin = blockIdx.x * kRowsOfPartialSum, left = g.shape.qkv.rows() - begin;
  const unsigned pieces =
      static_cast<unsigned>(left < kRowsOfPartialSum ? left : kRowsOfPartialSum) * cut.pieces();
  for (auto i = static_cast<unsigned>(team.number()); i < pieces; i += Team::kOfBlock) {
    const int64_t row = begin + i / cut.pieces();
    const Piece piece = cut.piece(i % cut.pieces());
    const int64_t at = row * g.shape.qkv.width() + piece.column;
    T* const dx = g.dx == nullptr ? nullptr : g.dx + at;
    if (piece.part == Part::v) {
      if (dx != nullptr) copy_piece<N>(team, g.dy + at, piece.cols, g.accumulate_dx, dx);
      continue;
    }
    const bool is_q = piece.part == Part::q;
    float* const dweight = (is_q ? partial_dq : partial_dk) == nullptr ? nullptr
                           : is_q                                      ? mine
                                                                       : mine + cut.q_cols;
    const int64_t group = row * g.shape.groups() + piece.group;
    rms_row_gradient<N>(team, g.x + at, is_q ? g.q_weight : g.k_weight, g.rstd[group], g.dy + at, piece.cols,
                        g.accumulate_dx, dx, dweight, g.products == nullptr ? nullptr : g.products + group,
                        piece.cols * g.shape.parts);
  }
  if (!sums) return;
  __syncthreads();
  for (int64_t j = thread; j < both; j += kThreads) {
    float sum = 0;
    for (int t = 0; t < Team::kOfBlock; ++t) sum += all[t * both + j];
    if (j < cut.q_cols) {
      if (partial_dq != nullptr) partial_dq[blockIdx.x * cut.q_cols + j] = sum;
    } else {
      if (partial_dk != nullptr) partial_dk[blockIdx.x * cut.k_cols + j - cut.q_cols] = sum;
    }
  }
}

// f.template operator()<Team, N>(): the smallest team whose threads have one load of a piece each. `fits`: by
// 16 bytes.
template <class T, class F>
void visit_team(const QkNormShape& shape, bool fits, const F& f) {
  constexpr int kN = kLanes<T>;
  if (!shape.per_head) {
    if (fits) return f.template operator()<BlockTeam<kThreads>, kN>();
    return f.template operator()<BlockTeam<kThreads>, 1>();
  }
  if (!fits) return f.template operator()<LaneTeam<kThreads, kWarp>, 1>();
  if (shape.qkv.head_dim <= 8 * kN) return f.template operator()<LaneTeam<kThreads, 8>, kN>();
  if (shape.qkv.head_dim <= 16 * kN) return f.template operator()<LaneTeam<kThreads, 16>, kN>();
  return f.template operator()<LaneTeam<kThreads, kWarp>, kN>();
}

// f.template operator()<N>(). `fits`: by 16 bytes.
template <class T, class F>
void visit_lanes(bool fits, const F& f) {
  fits ? f.template operator()<kLanes<T>>() : f.template operator()<1>();
}

}  // namespace

template <Device D, class T>
void qk_norm_squares(const QkNormShape& shape, const T* x, Accum<T>* squares, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_squares");
  visit_lanes<T>(fit_lanes(shape.qkv.head_dim, x), [&]<int N>() {
    launch(qk_norm_squares_kernel<T, N>, static_cast<unsigned>(shape.qkv.rows() * shape.groups()), kThreads,
           0, stream, shape, Cut(shape), x, squares);
  });
}

template <Device D, class T>
void qk_norm_products(const QkNormGradArgs<T>& g, Accum<T>* products, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_products");
  const int64_t d = g.shape.qkv.head_dim;
  visit_lanes<T>(fit_lanes(d, g.x, g.dy) && fit_lanes(d, g.q_weight, g.k_weight), [&]<int N>() {
    launch(qk_norm_products_kernel<T, N>, static_cast<unsigned>(g.shape.qkv.rows() * g.shape.groups()),
           kThreads, 0, stream, g, Cut(g.shape), products);
  });
}

template <Device D, class T>
void qk_norm_forward(const QkNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_forward");
  const Cut cut(g.shape);
  visit_team<T>(
      g.shape,
      fit_lanes(g.shape.qkv.head_dim, g.x, g.y) && fit_lanes(g.shape.qkv.head_dim, g.q_weight, g.k_weight),
      [&]<class Team, int N>() {
        launch(qk_norm_forward_kernel<Team, T, N>,
               blocks_for(g.shape.qkv.rows() * cut.pieces(), Team::kOfBlock), kThreads, 0, stream, g, cut);
      });
}

template <Device D, class T>
void qk_norm_backward(const QkNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "qk_norm_backward");
  const ArenaScope scope(workspace);
  const Cut cut(g.shape);
  const unsigned blocks = blocks_for(g.shape.qkv.rows(), kRowsOfPartialSum);
  const auto partial = [&](const float* gradient, int64_t cols) {
    return gradient == nullptr ? nullptr : workspace.take_on_device<float>(int64_t{blocks} * cols);
  };
  float *const dq = partial(g.dq_weight, cut.q_cols), *const dk = partial(g.dk_weight, cut.k_cols);
  const bool fits = fit_lanes(g.shape.qkv.head_dim, g.x, g.dy, g.dx) &&
                    fit_lanes(g.shape.qkv.head_dim, g.q_weight, g.k_weight);
  visit_team<T>(g.shape, fits, [&]<class Team, int N>() {
    const auto floats = static_cast<size_t>(Team::kOfBlock * (cut.q_cols + cut.k_cols));
    const size_t shared = dq == nullptr && dk == nullptr ? 0 : floats * sizeof(float);
    launch(qk_norm_backward_kernel<Team, T, N>, blocks, kThreads, shared, stream, g, cut, dq, dk);
  });
  add_partial_sums(dq, blocks, cut.q_cols, g.dq_weight, stream);
  add_partial_sums(dk, blocks, cut.k_cols, g.dk_weight, stream);
}

template void qk_norm_squares<Device::cuda>(const QkNormShape&, const float*, float*, Stream&);
template void qk_norm_squares<Device::cuda>(const QkNormShape&, const bf16*, float*, Stream&);
template void qk_norm_products<Device::cuda>(const QkNormGradArgs<float>&, float*, Stream&);
template void qk_norm_products<Device::cuda>(const QkNormGradArgs<bf16>&, float*, Stream&);
template void qk_norm_forward<Device::cuda>(const QkNormArgs<float>&, Stream&);
template void qk_norm_forward<Device::cuda>(const QkNormArgs<bf16>&, Stream&);
template void qk_norm_backward<Device::cuda>(const QkNormGradArgs<float>&, Arena&, Stream&);
template void qk_norm_backward<Device::cuda>(const QkNormGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
