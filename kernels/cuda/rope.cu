// A block rotates one row, 16 bytes of each half of a head a thread at a time, or one pair where sizes or
// addresses are no multiple of that. Angles are computed in f64 once for each position, as on the CPU. Floor:
// one read and one write of qkv (one more read where y is added to), 3 FLOPs a value; the tables of cosines
// and sines are 8 bytes for each position and pair, which all heads share. Memory's.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/rope.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

// cosine, sine [rows, half], of rows at these positions; null: at 0, 1, ...
__global__ void __launch_bounds__(kThreads)
    rotations_kernel(double theta, int64_t head_dim, const int32_t* positions, int64_t rows, bool inverse,
                     float* cosine, float* sine) {
  const int64_t half = head_dim / 2, at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= rows * half) return;
  const int64_t position = positions == nullptr ? at / half : positions[at / half];
  const double frequency = pow(theta, -2.0 * static_cast<double>(at % half) / static_cast<double>(head_dim));
  // In half turns, as exact as the angle itself: sin() of many turns needs a table in local memory.
  const double half_turns = static_cast<double>(position) * frequency * 0.318309886183790672;
  double s, c;
  sincospi(half_turns, &s, &c);
  cosine[at] = static_cast<float>(c);
  sine[at] = static_cast<float>(inverse ? -s : s);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(RopeArgs<T> g, const float* cosine, const float* sine) {
  const int64_t row = blockIdx.x, half = g.shape.head_dim / 2, width = g.shape.width();
  const int64_t position = g.positions == nullptr ? row % g.shape.length : g.positions[row];
  const T* x = g.x + row * width;
  T* y = g.y + row * width;
  const float *c = cosine + position * half, *s = sine + position * half;

  const int64_t rotated = g.shape.v_column();
#pragma unroll 1  // this one and the next: unrolled, ptxas spills registers
  for (int64_t pair = threadIdx.x * N; pair < rotated / 2; pair += kThreads * N) {
    const int64_t j = pair % half, low_at = pair / half * g.shape.head_dim + j;
    const Values<T, N> low = load<N>(x + low_at), high = load<N>(x + low_at + half);
    Values<T, N> new_low, new_high;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      new_low.v[i] = low.v[i] * c[j + i] - high.v[i] * s[j + i];
      new_high.v[i] = high.v[i] * c[j + i] + low.v[i] * s[j + i];
    }
    write(y + low_at, g.accumulate, new_low);
    write(y + low_at + half, g.accumulate, new_high);
  }
#pragma unroll 1
  for (int64_t at = rotated + threadIdx.x * N; at < width; at += kThreads * N) {
    write(y + at, g.accumulate, load<N>(x + at));
  }
}

}  // namespace

template <Device D, class T>
void rope(const RopeArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "rope");
  const AttentionShape& shape = g.shape;
  const int64_t half = shape.head_dim / 2;
  const ArenaScope scope(workspace);
  auto* const cosine = workspace.take_on_device<float>(shape.length * half);
  auto* const sine = workspace.take_on_device<float>(shape.length * half);
  launch(rotations_kernel, blocks_for(shape.length * half, kThreads), kThreads, 0, stream, g.theta,
         shape.head_dim, nullptr, shape.length, g.inverse, cosine, sine);
  const auto rows = static_cast<unsigned>(shape.width() > 0 ? shape.rows() : 0);
  // Where halves of heads are multiples of 16 bytes, so are heads and rows.
  launch(fit_lanes(half, g.x, g.y) ? rope_kernel<T, kLanes<T>> : rope_kernel<T, 1>, rows, kThreads, 0, stream,
         g, cosine, sine);
}

template <Device D, class A>
void rotation_rows(double theta, int64_t head_dim, const int32_t* positions, int64_t rows, A* cosine, A* sine,
                   Stream& stream) {
  const Span span(stream.profile(), "rotation_rows");
  launch(rotations_kernel, blocks_for(rows * (head_dim / 2), kThreads), kThreads, 0, stream, theta, head_dim,
         positions, rows, false, cosine, sine);
}

template void rotation_rows<Device::cuda>(double, int64_t, const int32_t*, int64_t, float*, float*, Stream&);
template void rope<Device::cuda>(const RopeArgs<float>&, Arena&, Stream&);
template void rope<Device::cuda>(const RopeArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
