#include <cmath>

#include <ziggurat/kernels/rope.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

template <class T, class A>
void put(T* y, A value, bool accumulate) {
  *y = T(accumulate ? A(*y) + value : value);
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

template <Device D, class T>
void rope(const RopeArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "rope");
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t d = s.head_dim, half = d / 2, width = s.width(), v_column = s.v_column();
  const ArenaScope scope(workspace);
  const auto table = [&](int64_t n) {
    return static_cast<A*>(workspace.allocate(n * static_cast<int64_t>(sizeof(A))));
  };
  A *cosine = table(s.length * half), *sine = table(s.length * half);  // [T, d/2]
  rotation_tables<D>(g.theta, d, s.length, g.inverse, cosine, sine);

  parallel_for_blocks(s.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = g.positions == nullptr ? row % s.length : g.positions[row];
      const A *c = cosine + position * half, *sn = sine + position * half;
      const T* x = g.x + row * width;
      T* y = g.y + row * width;
      for (int64_t head = 0; head < v_column; head += d) {
        for (int64_t j = 0; j < half; ++j) {
          const A low = A(x[head + j]), high = A(x[head + j + half]);
          put(y + head + j, low * c[j] - high * sn[j], g.accumulate);
          put(y + head + j + half, high * c[j] + low * sn[j], g.accumulate);
        }
      }
      for (int64_t j = v_column; j < width; ++j) put(y + j, A(x[j]), g.accumulate);
    }
  });
}

template void rotation_tables<Device::cpu>(double, int64_t, int64_t, bool, float*, float*);
template void rotation_tables<Device::cpu>(double, int64_t, int64_t, bool, double*, double*);
template void rope<Device::cpu>(const RopeArgs<float>&, Arena&, Stream&);
template void rope<Device::cpu>(const RopeArgs<bf16>&, Arena&, Stream&);
template void rope<Device::cpu>(const RopeArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
