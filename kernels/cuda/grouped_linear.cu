// A block takes a tile of a product, 64 x 64 in f32 and 128 x 128 in bf16, whose depth it walks in steps that
// come into shared memory while earlier ones are multiplied: bf16 by tensor cores, f32 by FMAs. Which expert
// a tile of rows belongs to it finds in the offsets, so that no host has to read them; there are as many
// blocks as tiles there may be, and those too many leave. The gradient of a weight sums over all rows of its
// expert in one block, in order. Floor: 2 R in out FLOP of each product. Each element of a tile comes from
// the L2 cache for every tile that needs it: 64 FLOP a byte in bf16, 16 in f32; from memory the weights once
// for each tile of their expert's rows, of which neighbouring blocks have the same. dbias reads dz once more,
// 1 FLOP a value.
#include <type_traits>

#include <kernels/cuda/device/activation.h>
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/gradient_rows.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/mma.h>
#include <kernels/cuda/device/tile.h>
#include <kernels/cuda/lib/grouped_matmul.h>

#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::kernels {

namespace {

// Which rows a tile holds. Of the last tiles, `group` is -1: there are none.
struct RowTile {
  int group = -1;
  int begin = 0, end = 0;
};

// Tile number `tile`, of kTile rows, of all groups' in order; each group's begin at its own first row. Every
// warp for itself.
template <int kTile>
__device__ RowTile find_tile(const RowGroups& groups, int tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, count = static_cast<int>(groups.count());
  for (int first = 0; first < count; first += kWarp) {
    const int group = first + lane;
    const int begin = group < count ? groups.offsets[group] : 0;
    const int end = group < count ? groups.offsets[group + 1] : 0;
    int tiles = (end - begin + kTile - 1) / kTile;  // up to and with this lane's group
#pragma unroll
    for (int bits = 1; bits < kWarp; bits *= 2) {
      const int lower = __shfl_up_sync(kWholeWarp, tiles, static_cast<unsigned>(bits));
      if (lane >= bits) tiles += lower;
    }
    const unsigned reached = __ballot_sync(kWholeWarp, tiles > tile);
    if (reached != 0) {
      const int owner = __ffs(static_cast<int>(reached)) - 1;
      const int before = owner == 0 ? 0 : __shfl_sync(kWholeWarp, tiles, owner - 1);
      const int row = __shfl_sync(kWholeWarp, begin, owner) + (tile - before) * kTile;
      return {first + owner, row, __shfl_sync(kWholeWarp, end, owner)};
    }
    tile -= __shfl_sync(kWholeWarp, tiles, kWarp - 1);
  }
  return {};
}

// One side of a product, rows [begin, end) of it: element (i, k) lies at data[i stride + k] where
// kAlongDepth, else at data[k stride + i].
template <class T, bool kAlongDepth>
struct Operand {
  const T* data;
  int64_t stride, begin, end;
};

// The size of a tile, and of the steps of its depth.
template <class T>
struct Tiling;
template <>
struct Tiling<float> {
  static constexpr int kTile = 64, kThreads = 128, kDepth = 16;
};
template <>
struct Tiling<bf16> {
  static constexpr int kTile = 128, kThreads = 256, kDepth = 32;
};
constexpr int kStages = 3;  // steps in shared memory

// How an operand's step lies in shared memory: as in memory, in rows of kCols (device/tile.h).
template <class T, bool kAlongDepth>
struct StepTile {
  static constexpr int kRows = kAlongDepth ? Tiling<T>::kTile : Tiling<T>::kDepth;
  static constexpr int kCols = kAlongDepth ? Tiling<T>::kDepth : Tiling<T>::kTile;
  static constexpr int kStride = kTileStride<T, kCols>, kElements = kRows * kStride;

  // Zeros outside of the operand and from depth k_end on.
  __device__ static void begin_copy(const Operand<T, kAlongDepth>& from, int64_t k, int64_t k_end, bool fits,
                                    T* tile) {
    const int across = static_cast<int>(min(from.end - from.begin, int64_t{Tiling<T>::kTile}));
    const int depth = static_cast<int>(min(k_end - k, int64_t{Tiling<T>::kDepth}));
    const T* const data =
        from.data + (kAlongDepth ? from.begin * from.stride + k : k * from.stride + from.begin);
    copy_tile<Tiling<T>::kThreads, kRows, kCols>(data, from.stride, kAlongDepth ? across : depth,
                                                 kAlongDepth ? depth : across, fits, tile);
  }
};

// The sums of a tile, of which each thread has some. kA, kB: the operands lie along the depth.
template <class T, bool kA, bool kB>
struct Product;

template <bool kA, bool kB>
struct Product<float, kA, kB> {
  static constexpr int kLdA = StepTile<float, kA>::kStride, kLdB = StepTile<float, kB>::kStride;
  static constexpr int kRows = 8, kCols = 4, kColThreads = 16, kRowThreads = 8;
  static_assert(kColThreads * kRowThreads == Tiling<float>::kThreads);

  // Of neighbouring threads neighbouring rows or columns where these are 80 bytes apart, and else as many as
  // are read at once: no bank is met twice.
  __device__ static int row(int r) {
    const int thread = static_cast<int>(threadIdx.x) / kColThreads;
    return kA ? thread + kRowThreads * r : thread * kRows + r;
  }
  __device__ static int col(int c) {
    const int thread = static_cast<int>(threadIdx.x) % kColThreads;
    return kB ? thread + kColThreads * c : thread * kCols + c;
  }

  // sum += a b of one step
  __device__ void add(const float* a, const float* b) {
#pragma unroll 1
    for (int k = 0; k < Tiling<float>::kDepth; k += 4) {
      Values<float, 4> y[4];  // by column and depth, or by depth and column
#pragma unroll
      for (int i = 0; i < 4; ++i) y[i] = load<4>(kB ? b + col(i) * kLdB + k : b + (k + i) * kLdB + col(0));
      if constexpr (kA) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const Values<float, 4> x = load<4>(a + row(r) * kLdA + k);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
#pragma unroll
            for (int c = 0; c < kCols; ++c) sum[r][c] += x.v[e] * (kB ? y[c].v[e] : y[e].v[c]);
          }
        }
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float x[kRows];
          load_floats(a + (k + e) * kLdA + row(0), x);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCols; ++c) sum[r][c] += x[r] * (kB ? y[c].v[e] : y[e].v[c]);
          }
        }
      }
    }
  }

  // f(row, column, sums of neighbouring columns) for all that this thread has.
  template <class F>
  __device__ void each(const F& f) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if constexpr (kB) {
#pragma unroll
        for (int c = 0; c < kCols; ++c) {
          const float one[] = {sum[r][c]};
          f(row(r), col(c), one);
        }
      } else {
        f(row(r), col(0), sum[r]);
      }
    }
  }

  float sum[kRows][kCols] = {};
};

// Eight warps of 64 x 32.
template <bool kA, bool kB>
struct Product<bf16, kA, kB> {
  static constexpr int kLdA = StepTile<bf16, kA>::kStride, kLdB = StepTile<bf16, kB>::kStride;
  static constexpr int kRows = 64, kCols = 32, kColWarps = Tiling<bf16>::kTile / kCols;

  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / kWarp / kColWarps * kRows; }
  __device__ static int first_col() { return static_cast<int>(threadIdx.x) / kWarp % kColWarps * kCols; }

  __device__ void add(const bf16* a, const bf16* b) {
#pragma unroll
    for (int k = 0; k < Tiling<bf16>::kDepth; k += 16) {
      MmaB2 right[kCols / 16];
#pragma unroll
      for (int n = 0; n < kCols / 16; ++n) {
        const int col = first_col() + 16 * n;
        right[n] = kB ? load_b_transposed(b + col * kLdB + k, kLdB) : load_b(b + k * kLdB + col, kLdB);
      }
#pragma unroll
      for (int m = 0; m < kRows / 16; ++m) {
        const int row = first_row() + 16 * m;
        const MmaA left = kA ? load_a(a + row * kLdA + k, kLdA) : load_a_transposed(a + k * kLdA + row, kLdA);
#pragma unroll
        for (int n = 0; n < kCols / 16; ++n) {
          mma(sum[m][2 * n], left, right[n].left);
          mma(sum[m][2 * n + 1], left, right[n].right);
        }
      }
    }
  }

  template <class F>
  __device__ void each(const F& f) const {
    const int row = first_row() + lane_of_warp() / 4, col = first_col() + lane_of_warp() % 4 * 2;
#pragma unroll
    for (int m = 0; m < kRows / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        const float low[] = {sum[m][n][0], sum[m][n][1]}, high[] = {sum[m][n][2], sum[m][n][3]};
        f(row + 16 * m, col + 8 * n, low);
        f(row + 16 * m + 8, col + 8 * n, high);
      }
    }
  }

  float sum[kRows / 16][kCols / 8][4] = {};
};

template <class T, bool kA, bool kB>
constexpr size_t kSharedBytes = size_t{kStages} * (StepTile<T, kA>::kElements + StepTile<T, kB>::kElements) *
                                sizeof(T);

// c += a b over the depth [k_begin, k_end), with kSharedBytes.
template <class T, bool kA, bool kB>
__device__ __forceinline__ void multiply(Product<T, kA, kB>& c, const Operand<T, kA>& a,
                                         const Operand<T, kB>& b, int64_t k_begin, int64_t k_end, bool fits) {
  constexpr int kOfA = StepTile<T, kA>::kElements, kStage = kOfA + StepTile<T, kB>::kElements;
  constexpr int kDepth = Tiling<T>::kDepth;
  T* const shared = dynamic_shared<T>();
  const auto begin_step = [&](int64_t k, int stage) {
    if (k < k_end) {
      StepTile<T, kA>::begin_copy(a, k, k_end, fits, shared + stage * kStage);
      StepTile<T, kB>::begin_copy(b, k, k_end, fits, shared + stage * kStage + kOfA);
    }
    __pipeline_commit();
  };
  for (int stage = 0; stage < kStages - 1; ++stage) begin_step(k_begin + stage * kDepth, stage);
  int stage = 0;
  for (int64_t k = k_begin; k < k_end; k += kDepth) {
    __pipeline_wait_prior(kStages - 2);
    __syncthreads();  // everybody's copies of this step are there, and everybody has left the one before
    begin_step(k + (kStages - 1) * kDepth, stage == 0 ? kStages - 1 : stage - 1);
    c.add(shared + stage * kStage, shared + stage * kStage + kOfA);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
}

// to[0, n) = values, or +=, of which the first `inside` are there: all, and at a multiple of their size, if
// `fits`.
template <class T, int n>
__device__ __forceinline__ void write_columns(T* to, bool accumulate, bool fits, const float (&values)[n],
                                              int64_t inside) {
  if constexpr (std::is_same_v<T, bf16> && n == 2) {
    if (fits) {
      auto* const pair = reinterpret_cast<uint32_t*>(to);
      float low = values[0], high = values[1];
      if (accumulate) {
        low += __uint_as_float(*pair << 16);
        high += __uint_as_float(*pair & 0xffff0000u);
      }
      *pair = pack_bf16(low, high);
      return;
    }
  }
  if constexpr (n == kLanes<T>) {
    if (fits) {
      Values<T, n> all;
#pragma unroll
      for (int c = 0; c < n; ++c) all.v[c] = values[c];
      return write(to, accumulate, all);
    }
  }
#pragma unroll
  for (int c = 0; c < n; ++c) {
    if (c < inside) write(to + c, accumulate, Values<T, 1>{{values[c]}});
  }
}

// z = x weight^T + bias, y = activation(z)
template <class F, class T>
__global__ void __launch_bounds__(Tiling<T>::kThreads)
    grouped_forward_kernel(GroupedLinearArgs<T> g, bool fits) {
  constexpr int kTile = Tiling<T>::kTile;
  const RowTile tile = find_tile<kTile>(g.groups, static_cast<int>(blockIdx.x));
  if (tile.group < 0) return;
  const int64_t expert = tile.group / g.groups.sources, first = int64_t{blockIdx.y} * kTile;
  Product<T, true, true> product;
  multiply(product, Operand<T, true>{g.x, g.in, tile.begin, tile.end},
           Operand<T, true>{g.weight + expert * g.out * g.in, g.in, first, g.out}, 0, g.in, fits);
  product.each([&]<int n>(int i, int j, const float(&sums)[n]) {
    const int64_t row = tile.begin + i, col = first + j, at = row * g.out + col;
    if (row >= tile.end || col >= g.out) return;
    float z[n];
#pragma unroll
    for (int c = 0; c < n; ++c) {
      const bool biased = g.bias != nullptr && col + c < g.out;
      z[c] = to_float(rounded<T>(sums[c] + (biased ? g.bias[expert * g.out + col + c] : 0.0f)));
    }
    write_columns(g.z + at, false, fits, z, g.out - col);
    if constexpr (!F::kIsIdentity) {
#pragma unroll
      for (int c = 0; c < n; ++c) z[c] = F::value(z[c]);
      write_columns(g.y + at, false, fits, z, g.out - col);
    }
  });
}

// dx = dz weight
template <class T>
__global__ void __launch_bounds__(Tiling<T>::kThreads)
    grouped_dx_kernel(GroupedLinearArgs<T> f, const T* dz, T* dx, bool accumulate, bool fits) {
  constexpr int kTile = Tiling<T>::kTile;
  const RowTile tile = find_tile<kTile>(f.groups, static_cast<int>(blockIdx.x));
  if (tile.group < 0) return;
  const int64_t expert = tile.group / f.groups.sources, first = int64_t{blockIdx.y} * kTile;
  Product<T, true, false> product;
  multiply(product, Operand<T, true>{dz, f.out, tile.begin, tile.end},
           Operand<T, false>{f.weight + expert * f.out * f.in, f.in, first, f.in}, 0, f.out, fits);
  product.each([&]<int n>(int i, int j, const float(&sums)[n]) {
    const int64_t row = tile.begin + i, col = first + j;
    if (row >= tile.end || col >= f.in) return;
    write_columns(dx + row * f.in + col, accumulate, fits, sums, f.in - col);
  });
}

// dweight = dz^T x, or +=
template <class T>
__global__ void __launch_bounds__(Tiling<T>::kThreads)
    grouped_dweight_kernel(GroupedLinearArgs<T> f, const T* dz, float* dweight, int64_t stride,
                           bool overwrite, bool fits) {
  constexpr int kTile = Tiling<T>::kTile;
  const GradientRows at = gradient_rows(f.groups, blockIdx.z, f.out * f.in, stride);
  if (at.begin == at.end && !overwrite) return;
  const int64_t first_out = int64_t{blockIdx.y} * kTile, first_in = int64_t{blockIdx.x} * kTile;
  Product<T, false, false> product;
  multiply(product, Operand<T, false>{dz, f.out, first_out, f.out},
           Operand<T, false>{f.x, f.in, first_in, f.in}, at.begin, at.end, fits);
  product.each([&]<int n>(int i, int j, const float(&sums)[n]) {
    const int64_t row = first_out + i, col = first_in + j;
    if (row >= f.out || col >= f.in) return;
    write_columns(dweight + at.offset + row * f.in + col, !overwrite, fits, sums, f.in - col);
  });
}

// dbias += sum over rows of dz: a warp takes every eighth row of 32 columns.
constexpr int kWarpsOfBias = 8;
template <class T>
__global__ void __launch_bounds__(kWarp* kWarpsOfBias)
    grouped_dbias_kernel(RowGroups groups, const T* dz, int64_t out, float* dbias, int64_t stride) {
  __shared__ float sums[kWarpsOfBias][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const GradientRows at = gradient_rows(groups, blockIdx.y, out, stride);
  const int64_t col = int64_t{blockIdx.x} * kWarp + lane;
  float sum = 0;
  for (int64_t row = at.begin + warp; row < at.end && col < out; row += kWarpsOfBias) {
    sum += to_float(dz[row * out + col]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || col >= out || at.begin == at.end) return;
  for (int w = 1; w < kWarpsOfBias; ++w) sum += sums[w][lane];
  dbias[at.offset + col] += sum;
}

// Tiles of rows at most.
template <class T>
unsigned row_tiles(const GroupedLinearArgs<T>& g) {
  return static_cast<unsigned>(g.rows / Tiling<T>::kTile + g.groups.count());
}

}  // namespace

template <Device D, class T>
void grouped_linear_forward(const GroupedLinearArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "grouped_linear_forward");
  if constexpr (std::is_same_v<T, bf16>) {
    if (multiply_groups_by_library(g, workspace, stream)) {
      if (g.activation == Activation::none) return;
      return bias_activation_forward<D>(BiasActivationArgs<T>{g.activation, g.rows, g.out, g.z, nullptr, g.y},
                                        stream);
    }
  }
  const bool fits = fit_lanes(g.in, g.x, g.weight) && fit_lanes(g.out, g.z, g.y);
  visit_activation(g.activation, [&]<class F>(F) {
    launch(grouped_forward_kernel<F, T>, dim3(row_tiles(g), blocks_for(g.out, Tiling<T>::kTile)),
           Tiling<T>::kThreads, kSharedBytes<T, true, true>, stream, g, fits);
  });
}

template <Device D, class T>
void grouped_linear_backward(const GroupedLinearGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "grouped_linear_backward");
  const GroupedLinearArgs<T>& f = g.forward;
  const ArenaScope scope(workspace);
  // dz = dy * activation'(z)
  const T* dz = g.dy;
  if (f.activation != Activation::none) {
    T* made = workspace.take_on_device<T>(f.rows * f.out);
    bias_activation_backward<D>(
        BiasActivationGradArgs<T>{f.activation, f.rows, f.out, f.z, g.dy, made, nullptr}, workspace, stream);
    dz = made;
  }
  constexpr int kTile = Tiling<T>::kTile, kThreads = Tiling<T>::kThreads;
  const bool fits = fit_lanes(f.in, f.x, f.weight, g.dx) && fit_lanes(f.out, dz) &&
                    fit_lanes(f.in, g.dweight) && g.dweight_stride % kLanes<float> == 0;
  bool dweight_left = g.dweight != nullptr, dx_left = g.dx != nullptr;
  if constexpr (std::is_same_v<T, bf16>) {
    if (dweight_left) dweight_left = !dweight_of_groups_by_library(g, dz, workspace, stream);
    if (dx_left) dx_left = !dx_of_groups_by_library(g, dz, workspace, stream);
  }
  if (dweight_left) {
    const dim3 grid(blocks_for(f.in, kTile), blocks_for(f.out, kTile),
                    static_cast<unsigned>(gradients(f.groups, g.dweight_stride)));
    launch(grouped_dweight_kernel<T>, grid, kThreads, kSharedBytes<T, false, false>, stream, f, dz, g.dweight,
           g.dweight_stride, g.overwrite_dweight, fits);
  }
  if (dx_left) {
    launch(grouped_dx_kernel<T>, dim3(row_tiles(f), blocks_for(f.in, kTile)), kThreads,
           kSharedBytes<T, true, false>, stream, f, dz, g.dx, g.accumulate_dx, fits);
  }
  if (g.dbias != nullptr) {
    launch(grouped_dbias_kernel<T>,
           dim3(blocks_for(f.out, kWarp), static_cast<unsigned>(gradients(f.groups, g.dbias_stride))),
           kWarp * kWarpsOfBias, 0, stream, f.groups, dz, f.out, g.dbias, g.dbias_stride);
  }
}

template void grouped_linear_forward<Device::cuda>(const GroupedLinearArgs<float>&, Arena&, Stream&);
template void grouped_linear_forward<Device::cuda>(const GroupedLinearArgs<bf16>&, Arena&, Stream&);
template void grouped_linear_backward<Device::cuda>(const GroupedLinearGradArgs<float>&, Arena&, Stream&);
template void grouped_linear_backward<Device::cuda>(const GroupedLinearGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
