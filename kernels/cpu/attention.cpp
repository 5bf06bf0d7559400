#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include <kernels/cpu/reductions.h>

#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// Query rows scored at once. Half a block above the diagonal is wasted, so small; but a product needs some
// rows to run near its peak.
constexpr int64_t kQueries = 64;
constexpr int64_t kLanes = 16;  // score rows are padded to whole registers

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Matrices of one thread, cut from one allocation made before the threads start.
template <class A>
class Scratch {
 public:
  Scratch(Arena& workspace, int64_t elements) : threads_(thread_count()), stride_(padded(elements)) {
    base_ = static_cast<A*>(workspace.allocate(threads_ * stride_ * static_cast<int64_t>(sizeof(A))));
  }
  class Cursor {
   public:
    explicit Cursor(A* next) : next_(next) {}
    A* take(int64_t elements) { return std::exchange(next_, next_ + padded(elements)); }

   private:
    A* next_;
  };
  Cursor mine() const { return Cursor(base_ + (threads_ == 1 ? 0 : thread_index()) * stride_); }

 private:
  int64_t threads_, stride_;
  A* base_;
};

// to [rows, cols] = factor * from, whose rows are ld elements apart
template <class T, class A>
void load(const T* from, int64_t ld, int64_t rows, int64_t cols, A factor, A* to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) to[i * cols + j] = factor * A(from[i * ld + j]);
  }
}

// to, whose rows are ld elements apart, = or += from [rows, cols]
template <class A, class T>
void store(const A* from, int64_t rows, int64_t cols, T* to, int64_t ld, bool accumulate) {
  for (int64_t i = 0; i < rows; ++i) {
    const A* f = from + i * cols;
    T* t = to + i * ld;
    if (accumulate) {
      for (int64_t j = 0; j < cols; ++j) t[j] = T(A(t[j]) + f[j]);
    } else {
      for (int64_t j = 0; j < cols; ++j) t[j] = T(f[j]);
    }
  }
}

// keep[j] = 1 / (1 - p) or 0 for the n probabilities from element `first` on. Not inlined: see reductions.h.
template <class A>
[[gnu::noinline]] void dropout_row(const AttentionDropout& dropout, uint64_t first, int64_t n, A* keep) {
  const auto p = static_cast<float>(dropout.probability);
  const A kept = A(1 / (1 - dropout.probability));
  std::array<uint32_t, 4 * Philox::kBatch> bits;
  for (uint64_t block = first / 4; 4 * block < first + static_cast<uint64_t>(n); block += Philox::kBatch) {
    dropout.random.blocks(block, bits);
    const auto at =
        static_cast<int64_t>(4 * block - first);  // of bits[0] in the row; negative where it starts
    const int64_t begin = std::max<int64_t>(0, -at), end = std::min<int64_t>(4 * Philox::kBatch, n - at);
    for (int64_t i = begin; i < end; ++i) {
      keep[at + i] = Philox::to_uniform(bits[static_cast<size_t>(i)]) < p ? A(0) : kept;
    }
  }
}

}  // namespace

template <Device D, class T>
void attention_forward(const AttentionArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_forward");
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t length = s.length, d = s.head_dim, width = s.width();
  const int64_t block = std::min(kQueries, length), ld = padded(length);
  const ArenaScope scope(workspace);
  const Scratch<A> scratch(workspace,
                           2 * padded(length * d) + 2 * padded(block * d) + block * ld + ld + padded(block));

  parallel_for(s.batch * s.kv_heads, [&](int64_t unit) {
    const OneThread one_thread;
    const auto product = [](const GemmArgs<A, A>& args) { gemm_on_this_thread<D>(args); };
    auto mine = scratch.mine();
    A* const k = mine.take(length * d);
    A* const v = mine.take(length * d);
    A* const q = mine.take(block * d);
    A* const o = mine.take(block * d);
    A* const scores = mine.take(block * ld);
    A* const keep = mine.take(ld);
    A* const normalise = mine.take(block);

    const int64_t b = unit / s.kv_heads, kv_head = unit % s.kv_heads;
    const T* rows = g.qkv + b * length * width;
    load(rows + s.k_column() + kv_head * d, width, length, d, A(1), k);
    load(rows + s.v_column() + kv_head * d, width, length, d, A(1), v);
    for (int64_t h = kv_head * s.group(); h < (kv_head + 1) * s.group(); ++h) {
      const int64_t head_row = (b * s.heads + h) * length;
      for (int64_t begin = 0; begin < length; begin += block) {
        const int64_t end = std::min(begin + block, length), n = end - begin;
        load(rows + begin * width + h * d, width, n, d, A(g.scale), q);
        product({false, true, n, end, d, q, d, k, d, scores, ld});
        for (int64_t i = begin; i < end; ++i) {
          A* p = scores + (i - begin) * ld;
          // Row i sees keys 0..i. Padding of -inf adds nothing to maximum and sum; then it becomes 0.
          std::fill(p + i + 1, p + padded(i + 1), -std::numeric_limits<A>::infinity());
          const A max = row_max(p, padded(i + 1));
          const A sum = exp_row(p, max, p, padded(i + 1));
          std::fill(p + i + 1, p + padded(end), A(0));
          g.log_sum_exp[head_row + i] = max + std::log(sum);
          normalise[i - begin] = 1 / sum;
          if (g.dropout.probability > 0) {
            dropout_row(g.dropout, static_cast<uint64_t>((head_row + i) * length), i + 1, keep);
            for (int64_t j = 0; j <= i; ++j) p[j] *= keep[j];
          }
        }
        product({false, false, n, d, end, scores, ld, v, d, o, d});
        for (int64_t r = 0; r < n; ++r) {  // here d factors a row, in the probabilities up to T
          for (int64_t e = 0; e < d; ++e) o[r * d + e] *= normalise[r];
        }
        store(o, n, d, g.y + (b * length + begin) * s.heads * d + h * d, s.heads * d, false);
      }
    }
  });
}

template <Device D, class T>
void attention_backward(const AttentionGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_backward");
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t length = s.length, d = s.head_dim, width = s.width(), y_width = s.heads * d;
  const int64_t block = std::min(kQueries, length), ld = padded(length);
  const ArenaScope scope(workspace);
  const Scratch<A> scratch(workspace, 4 * padded(length * d) + 3 * padded(block * d) + 2 * block * ld + ld);

  parallel_for(s.batch * s.kv_heads, [&](int64_t unit) {
    const OneThread one_thread;
    const auto product = [](const GemmArgs<A, A>& args) { gemm_on_this_thread<D>(args); };
    auto mine = scratch.mine();
    A* const k = mine.take(length * d);
    A* const v = mine.take(length * d);
    A* const dk = mine.take(length * d);
    A* const dv = mine.take(length * d);
    A* const q = mine.take(block * d);
    A* const dq = mine.take(block * d);
    A* const dout = mine.take(block * d);
    A* const probabilities = mine.take(block * ld);
    A* const dscores = mine.take(block * ld);
    A* const keep = mine.take(ld);

    const int64_t b = unit / s.kv_heads, kv_head = unit % s.kv_heads;
    const T* rows = g.qkv + b * length * width;
    T* drows = g.dqkv + b * length * width;
    load(rows + s.k_column() + kv_head * d, width, length, d, A(1), k);
    load(rows + s.v_column() + kv_head * d, width, length, d, A(1), v);
    std::fill(dk, dk + length * d, A(0));
    std::fill(dv, dv + length * d, A(0));
    for (int64_t h = kv_head * s.group(); h < (kv_head + 1) * s.group(); ++h) {
      const int64_t head_row = (b * s.heads + h) * length;
      for (int64_t begin = 0; begin < length; begin += block) {
        const int64_t end = std::min(begin + block, length), n = end - begin;
        const int64_t y_offset = (b * length + begin) * y_width + h * d;
        load(rows + begin * width + h * d, width, n, d, A(g.scale), q);
        load(g.dy + y_offset, y_width, n, d, A(1), dout);
        product({false, true, n, end, d, q, d, k, d, probabilities, ld});
        product({false, true, n, end, d, dout, d, v, d, dscores, ld});
        for (int64_t i = begin; i < end; ++i) {
          const int64_t r = i - begin;
          A *p = probabilities + r * ld, *ds = dscores + r * ld;
          // p = e^(score - lse); m = keep / (1 - dropout); dscore = p (m dp - delta), delta = dy . y
          const A lse = g.log_sum_exp[head_row + i];
          const A delta = dot_row<A>(g.dy + y_offset + r * y_width, g.y + y_offset + r * y_width, d);
          if (g.dropout.probability > 0) {
            dropout_row(g.dropout, static_cast<uint64_t>((head_row + i) * length), i + 1, keep);
            for (int64_t j = 0; j <= i; ++j) {
              const A e = vexp(p[j] - lse);
              ds[j] = e * (keep[j] * ds[j] - delta);
              p[j] = e * keep[j];
            }
          } else {
            for (int64_t j = 0; j < padded(i + 1); ++j) {
              const A e = vexp(p[j] - lse);
              ds[j] = e * (ds[j] - delta);
              p[j] = e;
            }
          }
          std::fill(p + i + 1, p + padded(end), A(0));
          std::fill(ds + i + 1, ds + padded(end), A(0));
        }
        // dv += (m p)^T dy, dk += dscore^T (scale q), dq = scale dscore k
        product({true, false, end, d, n, probabilities, ld, dout, d, dv, d, true});
        product({true, false, end, d, n, dscores, ld, q, d, dk, d, true});
        product({false, false, n, d, end, dscores, ld, k, d, dq, d});
        for (int64_t e = 0; e < n * d; ++e) dq[e] *= A(g.scale);
        store(dq, n, d, drows + begin * width + h * d, width, g.accumulate);
      }
    }
    store(dk, length, d, drows + s.k_column() + kv_head * d, width, g.accumulate);
    store(dv, length, d, drows + s.v_column() + kv_head * d, width, g.accumulate);
  });
}

template void attention_forward<Device::cpu>(const AttentionArgs<float>&, Arena&, Stream&);
template void attention_forward<Device::cpu>(const AttentionArgs<bf16>&, Arena&, Stream&);
template void attention_forward<Device::cpu>(const AttentionArgs<double>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<float>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<bf16>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
