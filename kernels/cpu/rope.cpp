#include <algorithm>
#include <cmath>

#include <ziggurat/kernels/rope.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// The two halves of one head; y += if `accumulate`. Not inlined: see reductions.h
template <bool accumulate, class T, class A>
[[gnu::noinline]] void rotate(const T* x, const A* cosine, const A* sine, int64_t half, T* y) {
  const T* const x_high = x + half;
  T* const y_high = y + half;
  for (int64_t j = 0; j < half; ++j) {
    const A low = A(x[j]), high = A(x_high[j]);
    const A new_low = low * cosine[j] - high * sine[j], new_high = high * cosine[j] + low * sine[j];
    y[j] = T(accumulate ? A(y[j]) + new_low : new_low);
    y_high[j] = T(accumulate ? A(y_high[j]) + new_high : new_high);
  }
}

template <class T>
[[gnu::noinline]] void add_row(const T* x, int64_t n, T* y) {
  for (int64_t j = 0; j < n; ++j) y[j] = T(Accum<T>(y[j]) + Accum<T>(x[j]));
}

}  // namespace

// Angles in f64: in f32 position 30,000 would know its angle to 0.002 only.
template <Device D, class A>
void rotation_tables(double theta, int64_t head_dim, int64_t positions, bool inverse, A* cosine, A* sine) {
  const int64_t half = head_dim / 2;
  parallel_for_blocks(positions, 16, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j < half; ++j) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
      for (int64_t t = begin; t < end; ++t) {
        const double angle = static_cast<double>(t) * frequency;
        cosine[t * half + j] = A(std::cos(angle));
        sine[t * half + j] = A(inverse ? -std::sin(angle) : std::sin(angle));
      }
    }
  });
}

template <Device D, class A>
void rotation_rows(double theta, int64_t head_dim, const int32_t* positions, int64_t rows, A* cosine, A* sine,
                   Stream&) {
  const int64_t half = head_dim / 2;
  parallel_for_blocks(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j < half; ++j) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
      for (int64_t r = begin; r < end; ++r) {
        const double angle = static_cast<double>(positions[r]) * frequency;
        cosine[r * half + j] = A(std::cos(angle));
        sine[r * half + j] = A(std::sin(angle));
      }
    }
  });
}

template <Device D, class T>
void rope(const RopeArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "rope");
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t d = s.head_dim, half = d / 2, width = s.width(), v_column = s.v_column();
  const ArenaScope scope(workspace);
  A* const cosine = workspace.take<A>(s.length * half);  // [T, d/2], as the next
  A* const sine = workspace.take<A>(s.length * half);
  rotation_tables<D>(g.theta, d, s.length, g.inverse, cosine, sine);

  parallel_for_blocks(s.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = g.positions == nullptr ? row % s.length : g.positions[row];
      const A *c = cosine + position * half, *sn = sine + position * half;
      const T* x = g.x + row * width;
      T* y = g.y + row * width;
      for (int64_t head = 0; head < v_column; head += d) {
        if (g.accumulate) {
          rotate<true>(x + head, c, sn, half, y + head);
        } else {
          rotate<false>(x + head, c, sn, half, y + head);
        }
      }
      if (g.accumulate) {
        add_row(x + v_column, width - v_column, y + v_column);
      } else {
        std::copy(x + v_column, x + width, y + v_column);
      }
    }
  });
}

template void rotation_tables<Device::cpu>(double, int64_t, int64_t, bool, float*, float*);
template void rotation_tables<Device::cpu>(double, int64_t, int64_t, bool, double*, double*);
template void rotation_rows<Device::cpu>(double, int64_t, const int32_t*, int64_t, float*, float*, Stream&);
template void rotation_rows<Device::cpu>(double, int64_t, const int32_t*, int64_t, double*, double*, Stream&);
template void rope<Device::cpu>(const RopeArgs<float>&, Arena&, Stream&);
template void rope<Device::cpu>(const RopeArgs<bf16>&, Arena&, Stream&);
template void rope<Device::cpu>(const RopeArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
